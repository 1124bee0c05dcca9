package main

// The command move: the state of a file becomes that of servers that share it in etcd.

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// moveToEtcd stores the records of the file at path in etcd, as c says, and returns how many there
// are. The file stays as it is. No server may use it or the prefix, which must be empty.
func moveToEtcd(ctx context.Context, path string, c serverConfig) (records int, err error) {
	settings, err := newEtcdSettings(c)
	if err != nil {
		return 0, err
	}
	if err := checkEtcdTLS(ctx, settings); err != nil {
		return 0, fmt.Errorf("connecting to etcd: %w", err)
	}
	file, err := openStore(path)
	if err != nil {
		return 0, storeError(err)
	}
	defer file.close()
	var all []write
	counter, err := file.load(func(bucket string, key, value []byte) error {
		all = append(all, write{bucket, bytes.Clone(key), bytes.Clone(value)})
		return nil
	})
	if err != nil {
		return 0, storeError(err)
	}
	to := newCandidate(settings)
	defer to.close()
	if err := to.checkEmpty(ctx); err != nil {
		return 0, withHint(fmt.Errorf("moving to %s: %w", c.Store, err),
			"stop all servers, and choose another prefix, or delete the keys: etcdctl del --prefix "+
				quote(c.Store.prefix+"/"))
	}
	term, err := to.stand(ctx, leaderInfo{Name: "call-me move", Version: version(), Since: time.Now()})
	if err == nil && term == nil {
		err = errInUse
	}
	if err == nil {
		defer term.resign()
		err = term.fill(max(counter, uint64(time.Now().UnixMilli())), all)
	}
	if err != nil {
		return 0, fmt.Errorf("moving to %s: %w", c.Store, err)
	}
	return len(all), nil
}
