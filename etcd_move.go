package main

// Filling an empty prefix with the records of a file.

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// checkEmpty returns errInUse if a server leads, or if there are keys with the prefix.
func (c *candidate) checkEmpty(ctx context.Context) error {
	m, err := c.look(ctx)
	if err != nil {
		return err
	}
	if m.leader != nil {
		return fmt.Errorf("%w: %s leads", errInUse, m.leader.Name)
	}
	isUsed, err := c.isForeign(ctx)
	if err == nil && isUsed {
		return fmt.Errorf("%w: there are keys with the prefix %q", errInUse, c.keys.all())
	}
	return err
}

// fill stores records under a prefix without any. The state comes last: a server refuses records
// without it, so nothing uses a part of them. The term keeps servers from beginning meanwhile.
func (t *etcdTerm) fill(counter uint64, records []write) error {
	s := t.store()
	ends := make([]int, len(records))
	for i := range records {
		ends[i] = i
	}
	for _, part := range cutAtSteps(records, ends) {
		var puts []clientv3.Op
		for _, w := range part {
			s.header.sum += checksumOf(w.value)
			puts = append(puts, clientv3.OpPut(t.keys.record(w.bucket, w.key), string(w.value)))
		}
		if err := t.put(puts); err != nil {
			return err
		}
	}
	return s.commit(counter, nil)
}

// put stores keys while this server leads, under a prefix without a state: otherwise it returns
// errInUse. Stored twice, they are the same.
func (t *etcdTerm) put(puts []clientv3.Op) error {
	ctx, done := t.calling()
	defer done()
	isStored := false
	err := t.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		sent := time.Now()
		got, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(t.keys.leader()), "=", t.number),
				clientv3.Compare(clientv3.ModRevision(t.keys.state()), "=", 0)). // no server has begun here
			Then(puts...).
			Commit()
		if err == nil {
			isStored = got.Succeeded
		}
		if isStored {
			t.prove(sent)
		}
		return err
	})
	if err == nil && !isStored {
		err = fmt.Errorf("%w: it has begun to use the prefix %q", errInUse, t.keys.all())
	}
	return err
}
