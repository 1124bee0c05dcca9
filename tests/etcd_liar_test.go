//go:build unix

package tests

// A member of etcd that hangs and yet renews leases, as old leaders of etcd before the fix of its
// issue 15247 do.

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A liar passes calls on to a member. Once it hangs, no read and no transaction has an answer, and
// all leases are renewed, also those that have ended.
type liar struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedLeaseServer
	kv    etcdserverpb.KVClient
	lease etcdserverpb.LeaseClient
	hangs atomic.Bool
	id    atomic.Uint64 // of the etcd

	beforePage atomic.Value // a func() that is called before each page of records; none if it is not set

	lost   atomic.Int64 // so many pages of records have no answer
	isFull atomic.Bool  // the next transaction is stored, and its answer is that there is no space

	address string
}

func newLiar(t *testing.T, member *etcdMember) *liar {
	t.Helper()
	conn, err := grpc.NewClient(member.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{kv: etcdserverpb.NewKVClient(conn), lease: etcdserverpb.NewLeaseClient(conn), address: listener.Addr().String()}
	server := grpc.NewServer()
	etcdserverpb.RegisterKVServer(server, l)
	etcdserverpb.RegisterLeaseServer(server, l)
	go server.Serve(listener)
	t.Cleanup(func() { server.Stop(); conn.Close() })
	return l
}

// hang returns when the call is given up, if the liar hangs.
func (l *liar) hang(ctx context.Context) {
	if l.hangs.Load() {
		<-ctx.Done()
	}
}

func (l *liar) Range(ctx context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	l.hang(ctx)
	if before, isSet := l.beforePage.Load().(func()); isSet && r.Revision > 0 {
		before()
	}
	if r.Revision > 0 && l.lost.Add(-1) >= 0 {
		<-ctx.Done()
	}
	return l.kv.Range(ctx, r)
}

func (l *liar) Txn(ctx context.Context, r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	l.hang(ctx)
	answer, err := l.kv.Txn(ctx, r)
	if err == nil && answer.Succeeded && l.isFull.Swap(false) {
		return nil, rpctypes.ErrGRPCNoSpace
	}
	return answer, err
}

func (l *liar) LeaseGrant(ctx context.Context, r *etcdserverpb.LeaseGrantRequest) (*etcdserverpb.LeaseGrantResponse, error) {
	l.hang(ctx)
	answer, err := l.lease.LeaseGrant(ctx, r)
	if err == nil {
		l.id.Store(answer.Header.ClusterId)
	}
	return answer, err
}

func (l *liar) LeaseRevoke(ctx context.Context, r *etcdserverpb.LeaseRevokeRequest) (*etcdserverpb.LeaseRevokeResponse, error) {
	l.hang(ctx)
	return l.lease.LeaseRevoke(ctx, r)
}

func (l *liar) LeaseKeepAlive(s etcdserverpb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		header := &etcdserverpb.ResponseHeader{ClusterId: l.id.Load()}
		answer := &etcdserverpb.LeaseKeepAliveResponse{Header: header, ID: r.ID, TTL: 2}
		if !l.hangs.Load() {
			real, err := l.lease.LeaseKeepAlive(s.Context())
			if err != nil {
				return err
			}
			if err := real.Send(r); err != nil {
				return err
			}
			if answer, err = real.Recv(); err != nil {
				return err
			}
		}
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}
