package main

// Leading: a server leads from the moment at which it has created the leader's key until that
// key is gone, or until the server has had no proof for too long that it is still there. That
// time is a term; its number is the create revision of the key.
//
// Not here: what is stored during a term (etcd_store.go), and what a server does that does not
// lead (server_pass.go).

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A candidate is a server that leads when nobody else does. Its methods must not be called at the
// same time.
type candidate struct {
	client *etcdClient
	keys   etcdKeys
	times  etcdTimes
	orphan clientv3.LeaseID // of a key of this server whose term has ended; zero if there is none
}

// newCandidate returns a candidate. close ends it.
func newCandidate(s etcdSettings) *candidate {
	return &candidate{client: newEtcdClient(s), keys: etcdKeys(s.prefix), times: s.times}
}

// close closes the connections. No term is used afterwards.
func (c *candidate) close() { c.client.close() }

// look returns what etcd has of the leader and the state, within an attempt of each member. A key that
// this server has left behind is deleted first: once etcd has a quorum again, it gives the key its full
// ttl.
func (c *candidate) look(ctx context.Context) (etcdMeta, error) {
	limited, cancel := context.WithTimeout(ctx, c.times.attempt*time.Duration(len(c.client.members)))
	defer cancel()
	m, err := c.client.readMeta(limited, c.keys)
	if err != nil || c.orphan == 0 {
		return m, err
	}
	c.revoke(limited, c.orphan)
	return c.client.readMeta(limited, c.keys)
}

// revoke ends a lease, and with it the leader's key. If etcd does not answer, look tries it again.
func (c *candidate) revoke(ctx context.Context, lease clientv3.LeaseID) {
	err := c.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Revoke(ctx, lease)
		return err
	})
	c.orphan = lease
	if err == nil || isFinalEtcdError(err) { // it has ended
		c.orphan = 0
	}
}

// isForeign reports whether keys begin with the prefix that are none of call-me's, or of a move
// that was not finished. There is no state.
func (c *candidate) isForeign(ctx context.Context) (bool, error) {
	var found []string
	err := c.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		got, err := client.Get(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithLimit(2))
		found = nil
		if err == nil {
			for _, kv := range got.Kvs {
				found = append(found, string(kv.Key))
			}
		}
		return err
	})
	for _, key := range found {
		if key != c.keys.leader() {
			return true, err
		}
	}
	return false, err
}

// stand tries to begin a term, after look has found no leader. The term is nil if another server
// was faster.
func (c *candidate) stand(ctx context.Context, info leaderInfo) (*etcdTerm, error) {
	ctx, cancel := context.WithTimeout(ctx, c.times.ttl)
	defer cancel()
	t := &etcdTerm{candidate: c}
	err := c.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		// A lease whose grant was not answered ends by itself.
		sent := time.Now()
		granted, err := client.Grant(ctx, int64((c.times.ttl+time.Second-1)/time.Second))
		if err == nil {
			t.lease = granted.ID
			t.renewed.Store(&sent)
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrNoSpace) {
		err = errQuota
	}
	if err != nil {
		return nil, err
	}
	t.ctx, t.stop = context.WithCancelCause(context.Background())
	t.number, err = t.create(ctx, info)
	if t.number == 0 {
		t.resign()
		return nil, err
	}
	go t.keep()
	return t, nil
}

// create creates the leader's key, and returns its create revision; zero if another server has.
func (t *etcdTerm) create(ctx context.Context, info leaderInfo) (revision int64, err error) {
	value, err := json.Marshal(info)
	if err != nil {
		return 0, err
	}
	key := t.keys.leader()
	err = t.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		sent := time.Now()
		got, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(value), clientv3.WithLease(t.lease))).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		t.prove(sent)
		if got.Succeeded {
			revision = got.Header.Revision
			return nil
		}
		for _, kv := range got.Responses[0].GetResponseRange().Kvs {
			if kv.Lease == int64(t.lease) { // an attempt before this one whose answer was lost
				revision = kv.CreateRevision
			}
		}
		return nil
	})
	return revision, err
}

// fullest returns the member whose quota is used most, how much of it in bytes, and the quota. It is
// zero if no member says its own: etcd before 3.6 does not, and one may not let this server ask.
func (c *candidate) fullest(ctx context.Context) (member string, used, quota int64) {
	for _, m := range c.client.members {
		client, err := m.open()
		if err != nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, c.times.attempt)
		status, err := client.Status(limited, m.config.Endpoints[0])
		cancel()
		if err != nil || status.DbSizeQuota <= 0 {
			continue
		}
		share := func(used, quota int64) float64 { return float64(used) / float64(quota) }
		if quota == 0 || share(status.DbSize, status.DbSizeQuota) > share(used, quota) {
			member, used, quota = m.config.Endpoints[0], status.DbSize, status.DbSizeQuota
		}
	}
	return member, used, quota
}

// An etcdTerm is the time in which this server leads. The keeper of the term uses its store,
// other goroutines only isProven, ctx and end.
type etcdTerm struct {
	*candidate
	number int64 // the create revision of the leader's key: no other term has it
	lease  clientv3.LeaseID

	proved  atomic.Pointer[time.Time] // when the request was sent that was the newest proof
	renewed atomic.Pointer[time.Time] // when the request was sent that last renewed the lease
	called  atomic.Pointer[time.Time] // when the keeper last had an answer of etcd; nil before expectCalls
	busy    atomic.Bool               // it waits for one

	ctx  context.Context // ends with the term; its cause says why
	stop context.CancelCauseFunc
}

// prove notes a proof that this server led: when its request was sent, or later. An answer to a
// renewal of the lease is none: a leader of etcd that hangs, and has a successor, may give it.
func (t *etcdTerm) prove(sent time.Time) { t.proved.Store(&sent) }

// isProven reports whether what is in memory may be shown: the term has not ended, there was a proof
// of it a short time ago, by the monotonic clock and by the wall clock, and the lease of the leader's
// key, without which the key does not stand any longer, was renewed a short time ago. A process that
// was stopped, or a machine that was suspended, has neither when it goes on.
func (t *etcdTerm) isProven() bool {
	now := time.Now()
	return t.ctx.Err() == nil && passed(*t.proved.Load(), now) < t.times.gate &&
		passed(*t.renewed.Load(), now) < t.times.gate
}

// passed returns how much time has passed, by the clock that has gone further.
func passed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// end ends the term. Only the first cause counts.
func (t *etcdTerm) end(cause error) { t.stop(cause) }

// calling notes that the keeper waits for etcd, until the function that it returns is called. ctx
// ends with the term, or once the newest proof is too old.
func (t *etcdTerm) calling() (ctx context.Context, done func()) {
	t.busy.Store(true)
	ctx, cancel := context.WithDeadline(t.ctx, t.proved.Load().Add(t.times.gate))
	return ctx, func() {
		cancel()
		if t.called.Load() != nil {
			t.expectCalls()
		}
		t.busy.Store(false)
	}
}

// expectCalls notes that the keeper calls etcd from now on. While it loads it may take longer.
func (t *etcdTerm) expectCalls() {
	now := time.Now()
	t.called.Store(&now)
}

// isHung reports whether the keeper has neither called etcd for some time nor waits for it: it
// confirms the leadership four times a second.
func (t *etcdTerm) isHung() bool {
	last := t.called.Load()
	return last != nil && !t.busy.Load() && passed(*last, time.Now()) > t.times.beat
}

// keep renews the lease of the leader's key until the term ends. It ends the term if the lease is
// gone, if there was no proof for too long, or if the keeper hangs: then another server must lead.
func (t *etcdTerm) keep() {
	ticker := time.NewTicker(t.times.poll)
	defer ticker.Stop()
	asked, last := time.Now(), time.Now()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-ticker.C:
		}
		wasStopped := passed(last, time.Now()) > 4*t.times.poll // then the keeper was, too
		last = time.Now()
		switch {
		case !t.isProven():
			t.end(fmt.Errorf("%w: etcd has not confirmed it for %v", errNotLeader, t.times.gate))
		case t.isHung() && !wasStopped:
			t.end(errHung)
		case time.Since(asked) >= t.times.renewal:
			asked = time.Now()
			t.renew()
		}
	}
}

// renew renews the lease, and ends the term if it is gone.
func (t *etcdTerm) renew() {
	ctx, cancel := context.WithTimeout(context.Background(), t.times.renewal)
	defer cancel()
	err := t.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		sent := time.Now()
		got, err := client.KeepAliveOnce(ctx, t.lease)
		if got != nil && !t.client.isOwn(got.ResponseHeader) {
			return errOtherEtcd
		}
		if err == nil {
			t.renewed.Store(&sent)
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.end(fmt.Errorf("%w: the lease of its key has ended", errNotLeader))
	}
}

// announce replaces what the leader's key says, unless another server leads.
func (t *etcdTerm) announce(info leaderInfo) error {
	value, err := json.Marshal(info)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.times.gate)
	defer cancel()
	key := t.keys.leader()
	return t.client.call(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", t.number)).
			Then(clientv3.OpPut(key, string(value), clientv3.WithLease(t.lease))).
			Commit()
		return err
	})
}

// resign ends the term, and lets the next server lead at once. The keeper must be closed.
func (t *etcdTerm) resign() {
	t.end(errStopping)
	ctx, cancel := context.WithTimeout(context.Background(), t.times.attempt*2)
	defer cancel()
	t.revoke(ctx, t.lease)
}
