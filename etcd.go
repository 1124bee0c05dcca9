package main

// The calls of etcd: which member is asked, how long a call is repeated, and what the errors
// mean. Of etcd's client only single calls are used. Its locks, elections and sessions are not:
// what keeps a server that leads no more from changing anything must be in the transactions
// themselves (etcd_store.go). Nor are its retries: it does not repeat a transaction whose answer
// was lost, and here that is safe.
//
// Only the etcd files import etcd's client.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// etcdSettings says how etcd is reached.
type etcdSettings struct {
	endpoints []string // host:port
	prefix    string   // of the keys, without a slash at its end
	tls       *tls.Config
	user      string
	password  func() (string, error) // nil without a user
	times     etcdTimes
}

// etcdTimes are the times of the leadership. All follow from the first.
type etcdTimes struct {
	ttl     time.Duration // of the leader's key, in whole seconds
	renewal time.Duration // between two renewals of it
	gate    time.Duration // how old the newest proof of the leadership may be
	attempt time.Duration // of a call of one member
	poll    time.Duration // between two looks of a server that does not lead
	beat    time.Duration // after which a keeper counts as hung
}

// newEtcdTimes returns the times for a ttl. With 8 s the key is renewed every 2 s, the gate is
// 6 s, and an attempt lasts 1.5 s.
func newEtcdTimes(ttl time.Duration) etcdTimes {
	return etcdTimes{ttl: ttl, renewal: ttl / 4, gate: ttl / 4 * 3, attempt: ttl * 3 / 16,
		poll: ttl / 32, beat: ttl * 3 / 8}
}

// An etcdClient calls the members of one etcd: one after the other, and the one that has answered
// last first. It is safe for concurrent use.
type etcdClient struct {
	members []*etcdMember
	attempt time.Duration
	current atomic.Uint32 // modulo the number of members: which is asked first
	cluster atomic.Uint64 // the id of the etcd that has answered first; zero before
	counter uint64        // the largest of the headers that were read or stored
}

// An etcdMember is one member, with its own connection: etcd's client would spread the calls over
// all of them, also over one that does not answer.
type etcdMember struct {
	config   clientv3.Config        // but for the password
	password func() (string, error) // nil without a user

	mu     sync.Mutex
	client *clientv3.Client // nil until it is used
}

// newEtcdClient returns a client. It makes no connection.
func newEtcdClient(s etcdSettings) *etcdClient {
	c := &etcdClient{attempt: s.times.attempt}
	scheme := "http://"
	if s.tls != nil {
		scheme = "https://"
	}
	// After a long time without a connection, one must be there again soon. grpc's own limits are
	// 2 minutes between two tries, and 20 s for each.
	connect := grpc.ConnectParams{MinConnectTimeout: 2 * s.times.attempt, Backoff: backoff.Config{
		BaseDelay: s.times.attempt / 10, Multiplier: 1.6, Jitter: 0.2, MaxDelay: s.times.attempt / 2}}
	for _, endpoint := range s.endpoints {
		c.members = append(c.members, &etcdMember{config: clientv3.Config{
			Endpoints:   []string{scheme + endpoint},
			DialTimeout: s.times.attempt,
			// A connection whose other end has vanished is given up soon: what was sent must be
			// acknowledged within the timeout. 10 s is the shortest time that grpc accepts.
			DialKeepAliveTime:    10 * time.Second,
			DialKeepAliveTimeout: s.times.attempt,
			DialOptions: []grpc.DialOption{grpc.WithConnectParams(connect),
				grpc.WithChainUnaryInterceptor(c.acceptOneCluster)},
			TLS:             s.tls,
			Username:        s.user,
			Logger:          zap.NewNop(),
			MaxUnaryRetries: 1, // none
		}, password: s.password})
	}
	return c
}

// errOtherEtcd is the error of an answer that is not of the etcd that has answered first: the state
// would be in two places, and a server could lead in each.
var errOtherEtcd = errors.New("the addresses are of two different etcd")

// acceptOneCluster makes an error of the answers of any other etcd than the first. It implements
// grpc.UnaryClientInterceptor. What renews a lease does not come through here, see etcdTerm.renew.
func (c *etcdClient) acceptOneCluster(
	ctx context.Context, method string, request, answer any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	err := invoke(ctx, method, request, answer, conn, options...)
	a, hasHeader := answer.(interface {
		GetHeader() *etcdserverpb.ResponseHeader
	})
	if err != nil || !hasHeader {
		return err
	}
	if !c.isOwn(a.GetHeader()) {
		return errOtherEtcd
	}
	return nil
}

// isOwn reports whether an answer is of the etcd that has answered first. The first one is.
func (c *etcdClient) isOwn(h *etcdserverpb.ResponseHeader) bool {
	return c.cluster.CompareAndSwap(0, h.GetClusterId()) || c.cluster.Load() == h.GetClusterId()
}

// checkCluster returns errOtherEtcd with an address unless all members that answer are of one etcd.
// hasMost reports whether more than half of them have answered.
func (c *etcdClient) checkCluster(ctx context.Context, p etcdKeys) (hasMost bool, err error) {
	answers := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() {
			err := c.try(ctx, m, func(ctx context.Context, client *clientv3.Client) error {
				_, err := client.Get(ctx, p.leader(), clientv3.WithSerializable())
				return err
			})
			if err != nil {
				err = fmt.Errorf("%s: %w", m.config.Endpoints[0], err)
			}
			answers <- err
		}()
	}
	count := 0
	for range c.members {
		answer := <-answers
		if answer == nil {
			count++
		}
		if errors.Is(answer, errOtherEtcd) {
			err = answer
		}
	}
	return count > len(c.members)/2, err
}

// open returns the connection to the member, which is made if there is none. With a user it reads
// the password and asks for a token.
func (m *etcdMember) open() (*clientv3.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		config := m.config
		if m.password != nil {
			password, err := m.password()
			if err != nil {
				return nil, err
			}
			config.Password = password
		}
		client, err := clientv3.New(config)
		if err != nil {
			return nil, err
		}
		m.client = client
	}
	return m.client, nil
}

// reset closes the connection, so that the next call makes another.
func (m *etcdMember) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		m.client.Close()
		m.client = nil
	}
}

// close closes the connections. The client is not used afterwards.
func (c *etcdClient) close() {
	for _, m := range c.members {
		m.reset()
	}
}

// call calls f with one member after the other until f returns nil or a final error, or until
// ctx ends. The error is then errStoreAway, with the last one. f may be called again after it had
// an effect that it does not know of.
func (c *etcdClient) call(ctx context.Context, f func(context.Context, *clientv3.Client) error) error {
	for tries := 1; ; tries++ {
		at := c.current.Load()
		err := c.try(ctx, c.members[int(at)%len(c.members)], f)
		if err == nil || isAboutState(err) {
			return err
		}
		c.current.CompareAndSwap(at, at+1)
		if isFinalEtcdError(err) {
			return err
		}
		pause := time.Duration(0)
		if tries%len(c.members) == 0 {
			pause = c.attempt / 5
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %v", errStoreAway, err)
		case <-time.After(pause):
		}
	}
}

// try calls f with one member.
func (c *etcdClient) try(
	ctx context.Context, m *etcdMember, f func(context.Context, *clientv3.Client) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, c.attempt)
	defer cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	client, err := m.open()
	if err == nil {
		err = f(ctx, client)
	}
	if errors.Is(err, rpctypes.ErrAuthFailed) {
		m.reset() // the password may be another one the next time
	}
	return err
}

// errQuota is that etcd refuses what needs space, until somebody has made some.
var errQuota = fmt.Errorf("%w: the quota of etcd is used up", errNoSpace)

// isAboutState reports whether the error is of what etcd has, and not of the call or the member.
func isAboutState(err error) bool {
	return errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrCompacted) ||
		errors.Is(err, rpctypes.ErrLeaseNotFound)
}

// isFinalEtcdError reports whether another member would give the same answer. After any other
// error it is unknown whether a transaction took effect.
func isFinalEtcdError(err error) bool {
	if errors.Is(err, rpctypes.ErrAuthOldRevision) { // the member is about to learn of a change
		return false
	}
	switch etcdErrorCode(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.NotFound, codes.OutOfRange, codes.Unimplemented:
		return true
	case codes.ResourceExhausted: // also that of a member that has too many requests
		return errors.Is(err, rpctypes.ErrNoSpace)
	}
	return false
}

// etcdErrorCode returns the code of an error of etcd's client.
func etcdErrorCode(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}

// isRefusedByEtcd reports whether etcd refuses this server for good: a wrong password, or a user
// without the rights.
func isRefusedByEtcd(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrPermissionDenied) ||
		errors.Is(err, rpctypes.ErrUserEmpty)
}

// http2Greeting is what a client of HTTP/2 sends first: its preface, and settings without any.
const http2Greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// checkEtcdTLS returns an error if a member that answers has a certificate that is not accepted,
// or does not accept that of this server. Members that do not answer are left out.
func checkEtcdTLS(ctx context.Context, s etcdSettings) error {
	if s.tls == nil {
		return nil
	}
	for _, endpoint := range s.endpoints {
		err := greetTLS(ctx, s, endpoint)
		var wrong *tls.CertificateVerificationError
		var other *net.OpError
		if errors.As(err, &wrong) || errors.As(err, &other) && other.Op == "remote error" {
			return fmt.Errorf("%s: %w", endpoint, err)
		}
	}
	return nil
}

// greetTLS connects to a member and reads the first byte of its answer: with TLS 1.3, a member that
// refuses the certificate of this server says so only after the handshake.
func greetTLS(ctx context.Context, s etcdSettings, endpoint string) error {
	config := s.tls.Clone()
	config.ServerName, _, _ = net.SplitHostPort(endpoint)
	config.NextProtos = []string{"h2"}
	ctx, cancel := context.WithTimeout(ctx, s.times.attempt)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	io.WriteString(conn, http2Greeting) // what is wrong with it, reading says
	_, err = conn.Read(make([]byte, 1))
	return err
}
