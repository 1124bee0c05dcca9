package main

// The keys in etcd, and what is in them besides the records, which are those of the file
// (record.go). All begin with the prefix.
//
//	PREFIX/meta/leader   who leads: JSON, attached to the lease of the leader
//	PREFIX/meta/state    the header, replaced by each transaction
//	PREFIX/BUCKET/KEY    a record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// etcdFormat is the version of what is in etcd. A server does not lead over a later one.
const etcdFormat = 1

// etcdPage is how many keys are read at once.
const etcdPage = 2000

// etcdKeys are the names of the keys. The value is the prefix.
type etcdKeys string

func (p etcdKeys) all() string    { return string(p) + "/" }
func (p etcdKeys) meta() string   { return string(p) + "/meta/" }
func (p etcdKeys) leader() string { return string(p) + "/meta/leader" }
func (p etcdKeys) state() string  { return string(p) + "/meta/state" }

func (p etcdKeys) bucket(name string) string           { return string(p) + "/" + name + "/" }
func (p etcdKeys) record(name string, k []byte) string { return p.bucket(name) + string(k) }

// An etcdHeader describes all that is stored. No two transactions store the same one, so it also
// says which transaction was the last.
type etcdHeader struct {
	format  uint64 // etcdFormat
	counter uint64 // as in the header of a file
	sum     uint64 // as in the header of a file
	term    uint64 // of the server that has stored it
	serial  uint64 // of the transactions of the term, those that failed included
}

// encodeEtcdHeader returns the value of a header, with a checksum as the records have.
func encodeEtcdHeader(h etcdHeader) []byte {
	return encode(metaBucket, headerKey, func(c *codec) { codeEtcdHeader(c, &h) })
}

// decodeEtcdHeader reverses encodeEtcdHeader. The error is errDamaged, or errNewerFormat.
func decodeEtcdHeader(value []byte) (h etcdHeader, err error) {
	err = decode(metaBucket, headerKey, value, func(c *codec) { codeEtcdHeader(c, &h) })
	if err == nil && h.format > etcdFormat {
		err = fmt.Errorf("%w: its format is %d, this call-me knows %d", errNewerFormat, h.format, etcdFormat)
	}
	return h, err
}

func codeEtcdHeader(c *codec, h *etcdHeader) {
	c.number(&h.format)
	c.number(&h.counter)
	c.number(&h.sum)
	c.number(&h.term)
	c.number(&h.serial)
}

// A leaderInfo is what the leader says of itself in its key.
type leaderInfo struct {
	Name     string    `json:"name"`
	URL      string    `json:"url"` // where other servers pass calls on to
	Version  string    `json:"version"`
	Since    time.Time `json:"since"`
	Settings string    `json:"settings"` // a digest of what must be the same on all servers
	Slots    string    `json:"slots"`    // a digest of the declared environments and slots alone
}

// hasSettingsOf reports whether both say the same of their settings.
func (i leaderInfo) hasSettingsOf(other leaderInfo) bool {
	return i.Settings == other.Settings && i.Slots == other.Slots
}

// An etcdMeta is what the two keys of meta show at one moment.
type etcdMeta struct {
	leader  *leaderInfo // nil if nobody leads
	term    int64       // of the leader: the create revision of its key
	state   int64       // the mod revision of the state; zero if there is none
	value   []byte      // of the state
	header  etcdHeader  // that it is
	invalid error       // of the state: errDamaged, errNewerFormat or errSetBack

	revision int64 // of this moment
}

// readMeta reads both keys at one moment after it was called: a get of etcd is linearizable. A
// transaction with compares alone would not be: etcd answers it like a serializable read, also a
// member that is cut off from the others. readMeta must not be called at the same time.
func (c *etcdClient) readMeta(ctx context.Context, p etcdKeys) (m etcdMeta, err error) {
	var got *clientv3.GetResponse
	err = c.call(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		got, err = client.Get(ctx, p.meta(), clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return m, err
	}
	m.revision = got.Header.Revision
	for _, kv := range got.Kvs {
		switch string(kv.Key) {
		case p.leader():
			m.leader, m.term = &leaderInfo{}, kv.CreateRevision
			json.Unmarshal(kv.Value, m.leader) // of any other text it is empty: somebody leads
		case p.state():
			m.state, m.value = kv.ModRevision, kv.Value
			m.header, m.invalid = decodeEtcdHeader(kv.Value)
		}
	}
	if m.invalid == nil && m.header.counter < c.counter {
		m.invalid = errSetBack
	}
	c.counter = max(c.counter, m.header.counter)
	return m, nil
}

// readPrefix reads all keys with a prefix as they were at a revision, and calls page for each
// part of them. Before each part it calls before. The errors are errCompacted if the revision is
// not there any more, that of before, and that of the calls.
func (c *etcdClient) readPrefix(
	ctx context.Context, prefix string, revision int64, before func() error, page func([]*mvccpb.KeyValue),
) error {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	limit := int64(etcdPage)
	for {
		if err := before(); err != nil {
			return err
		}
		var got *clientv3.GetResponse
		err := c.call(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
			got, err = client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(limit),
				clientv3.WithRev(revision))
			if err != nil {
				limit = max(1, limit/2) // a slow network may not bring as much in an attempt
			}
			return err
		})
		if errors.Is(err, rpctypes.ErrCompacted) {
			return errCompacted
		}
		if err != nil {
			return err
		}
		page(got.Kvs)
		if !got.More {
			return nil
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

var errCompacted = errors.New("the revision was compacted while it was read")
