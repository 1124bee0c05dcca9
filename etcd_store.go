package main

// The store of a term: the records in etcd. Each transaction names the term and the transaction
// before it. So those of all terms are one chain: one that is sent twice, late, or by a server
// that leads no more does not apply.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The limits of a transaction. Those of etcd are 128 operations and 1.5 MiB.
const (
	etcdMaxWrites = 119 // and the state
	etcdMaxBytes  = 1 << 20
)

// An etcdStore implements keeperStore for one term. After an error that is not errNoSpace the term
// has ended. Its methods must not be called at the same time.
type etcdStore struct {
	term   *etcdTerm
	keys   etcdKeys
	state  int64      // the mod revision of the state as the last save left it; zero if there is none
	header etcdHeader // the same
	serial uint64     // of the last transaction that was sent
	sums   map[string]uint64
}

// store returns the store of the term.
func (t *etcdTerm) store() *etcdStore {
	return &etcdStore{term: t, keys: t.keys, sums: map[string]uint64{}}
}

// load implements keeperStore. All is read as it was at one revision, after the term has begun:
// what the servers before this one have stored is in it, and nothing that they send can be stored
// any more. The errors are errNotLeader, errDamaged, errNewerFormat, errForeign, errStoreAway, and why the
// term has ended.
func (s *etcdStore) load(each func(bucket string, key, value []byte) error) (counter uint64, err error) {
	all := map[string][]*mvccpb.KeyValue{}
	err = errCompacted
	for errors.Is(err, errCompacted) {
		clear(all)
		err = s.read(all)
	}
	if err != nil {
		s.term.end(err)
		return 0, context.Cause(s.term.ctx) // it may have ended before, and err is what came of it
	}
	sum := uint64(0)
	for _, name := range recordBuckets {
		prefix := s.keys.bucket(name)
		for _, kv := range all[name] {
			if len(kv.Value) < checksumSize {
				return 0, damagedRecord(name, kv.Key[len(prefix):])
			}
			s.sums[string(kv.Key)] = checksumOf(kv.Value)
			sum += checksumOf(kv.Value)
			if err := each(name, kv.Key[len(prefix):], kv.Value); err != nil {
				return 0, err
			}
		}
	}
	if sum != s.header.sum {
		return 0, fmt.Errorf("%w: records are missing or do not belong together", errDamaged)
	}
	return s.header.counter, nil
}

// read reads the header, and the records of all buckets.
func (s *etcdStore) read(all map[string][]*mvccpb.KeyValue) error {
	m, err := s.prove()
	if err != nil {
		return err
	}
	if m.invalid != nil {
		return m.invalid
	}
	s.state, s.header = m.state, m.header
	ctx := s.term.ctx // a page may take several attempts; without a proof the term ends
	proveAgain := func() error { _, err := s.prove(); return err }
	count := 0
	for _, name := range recordBuckets {
		collect := func(kvs []*mvccpb.KeyValue) {
			all[name] = append(all[name], kvs...)
			count += len(kvs)
		}
		err := s.term.client.readPrefix(ctx, s.keys.bucket(name), m.revision, proveAgain, collect)
		if err != nil {
			return err
		}
	}
	if s.state == 0 {
		foreign, err := s.term.isForeign(ctx)
		if err != nil || foreign || count > 0 {
			return errors.Join(errForeign, err)
		}
	}
	return nil
}

// prove reads both keys of meta, and returns errNotLeader unless this server led at a moment after
// prove was called.
func (s *etcdStore) prove() (m etcdMeta, err error) {
	ctx, done := s.term.calling()
	defer done()
	sent := time.Now()
	m, err = s.term.client.readMeta(ctx, s.keys)
	switch {
	case err != nil:
		return m, fmt.Errorf("%w: %w", errNotLeader, err)
	case m.term != s.term.number:
		return m, errNotLeader
	}
	s.term.prove(sent)
	return m, nil
}

// confirm implements keeperStore. The state must also be as the last save left it: a transaction
// that was given up may have been stored meanwhile.
func (s *etcdStore) confirm() error {
	m, err := s.prove()
	if err == nil && m.state != s.state {
		err = fmt.Errorf("%w: the state is not as this server left it", errNotLeader)
	}
	if err != nil {
		s.term.end(err)
	}
	return err
}

// exclusive implements keeperStore. Another server may lead at any moment.
func (s *etcdStore) exclusive() bool { return false }

// close implements keeperStore. The term goes on until it is resigned.
func (s *etcdStore) close() error { return nil }

// save implements keeperStore. A part that was stored cannot be taken back, so after an error of a
// later one the term ends, and all is loaded again.
func (s *etcdStore) save(counter uint64, writes []write, ends []int) error {
	for i, part := range cutAtSteps(writes, ends) {
		err := s.commit(counter, part)
		if err != nil && (i > 0 || !errors.Is(err, errNoSpace)) {
			if !errors.Is(err, errNotLeader) {
				err = fmt.Errorf("%w: %v", errNotLeader, err) // never errNoSpace
			}
			s.term.end(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cutAtSteps cuts writes into parts that fit into a transaction, as few as it takes, each of which
// ends where a step does. There is at least one.
func cutAtSteps(writes []write, ends []int) (parts [][]write) {
	from, to, size := 0, 0, 0
	for _, end := range append(ends[:len(ends):len(ends)], len(writes)) {
		step := 0
		for _, w := range writes[to:end] {
			step += len(w.bucket) + len(w.key) + len(w.value)
		}
		if to > from && (end-from > etcdMaxWrites || size+step > etcdMaxBytes) {
			parts = append(parts, writes[from:to])
			from, size = to, 0
		}
		to, size = end, size+step
	}
	return append(parts, writes[from:])
}

// commit stores one transaction. It is sent until there is an answer, or until the proof of the
// leadership is too old. The error is errNoSpace if nothing is stored.
func (s *etcdStore) commit(counter uint64, writes []write) error {
	writes = latestWrites(writes)
	s.serial++
	h := etcdHeader{format: etcdFormat, counter: counter, sum: s.header.sum,
		term: uint64(s.term.number), serial: s.serial}
	var then []clientv3.Op
	for _, w := range writes {
		key := s.keys.record(w.bucket, w.key)
		h.sum -= s.sums[key]
		if w.value == nil {
			then = append(then, clientv3.OpDelete(key))
			continue
		}
		h.sum += checksumOf(w.value)
		then = append(then, clientv3.OpPut(key, string(w.value)))
	}
	value := encodeEtcdHeader(h)
	then = append(then, clientv3.OpPut(s.keys.state(), string(value)))
	state, err := s.send(then, value)
	if err != nil {
		return err
	}
	s.state, s.header = state, h
	s.term.client.counter = max(s.term.client.counter, counter)
	for _, w := range writes {
		key := s.keys.record(w.bucket, w.key)
		if w.value == nil {
			delete(s.sums, key)
		} else {
			s.sums[key] = checksumOf(w.value)
		}
	}
	return nil
}

// send sends a transaction that stores value as the state, and returns the revision at which it
// was stored.
func (s *etcdStore) send(then []clientv3.Op, value []byte) (state int64, err error) {
	ctx, done := s.term.calling()
	defer done()
	var sent time.Time
	var got *clientv3.TxnResponse
	err = s.term.client.call(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		sent = time.Now()
		got, err = client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(s.keys.leader()), "=", s.term.number),
				clientv3.Compare(clientv3.ModRevision(s.keys.state()), "=", s.state)).
			Then(then...).
			Else(clientv3.OpGet(s.keys.leader()), clientv3.OpGet(s.keys.state())).
			Commit()
		return err
	})
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return s.afterNoSpace(value)
	case err != nil:
		return 0, err
	case got.Succeeded:
		s.term.prove(sent)
		return got.Header.Revision, nil
	}
	leader, stored := firstOf(got.Responses[0]), firstOf(got.Responses[1])
	switch {
	case leader.CreateRevision != s.term.number:
		return 0, errNotLeader
	case !bytes.Equal(stored.Value, value):
		return 0, fmt.Errorf("%w: the state is not as this server left it", errNotLeader)
	}
	s.term.prove(sent) // an earlier attempt was stored
	return stored.ModRevision, nil
}

// firstOf returns the first key of an answer; an empty one if there is none.
func firstOf(r *etcdserverpb.ResponseOp) *mvccpb.KeyValue {
	for _, kv := range r.GetResponseRange().Kvs {
		return kv
	}
	return &mvccpb.KeyValue{}
}

// afterNoSpace finds out whether a transaction was stored that etcd had no space for: the one that
// crosses its quota is stored, and gets that answer nevertheless. The error is errNoSpace if it was
// not. An attempt that was not answered may be stored later all the same, until another transaction
// is. The term does not end for that: while etcd has no space no other could begin. Once such an
// attempt is stored, the state is not as this server left it, and confirm or the next save finds out.
func (s *etcdStore) afterNoSpace(value []byte) (state int64, err error) {
	m, err := s.prove()
	switch {
	case err != nil:
		return 0, err
	case m.state != s.state && bytes.Equal(m.value, value):
		return m.state, nil
	case m.state != s.state:
		return 0, fmt.Errorf("%w: the state is not as this server left it", errNotLeader)
	}
	return 0, errQuota
}
