package main

// Webhooks: a word to a chat about what happens. This file delivers it: each receiver has a
// queue and a goroutine of its own, so that one that hangs holds up neither the others nor the
// keeper. Which events are due is in server_webhook_due.go, what is sent of them in
// server_webhook_text.go.

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxNotices    = 1000             // that wait for a receiver; further ones are dropped
	noticeTries   = 3                // of each notice
	noticeTime    = 10 * time.Second // of one try
	noticeBackoff = time.Second      // after the first try; five times as long after the second
	maxRetryAfter = time.Minute      // that a receiver may ask for
	noticePeriod  = 5 * time.Second  // how often long waits and leases that end soon are looked for
)

// signatureHeader is the header with the HMAC-SHA256 of the body: sha256= and hexadecimal digits.
const signatureHeader = "Call-Me-Signature"

// webhookStarter returns startWebhooks with all that is known before there is a keeper.
func webhookStarter(
	receivers []*receiver, events webhookEvents, log *slog.Logger,
) func(k *keeper, isProven func() bool) (stop func()) {
	return func(k *keeper, isProven func() bool) (stop func()) {
		return startWebhooks(receivers, events, k, isProven, log)
	}
}

// startWebhooks tells receivers of what happens from now on, until stop is called. What has not
// been delivered by then is dropped. stop returns when nothing uses the keeper and the log any
// more. Without a receiver startWebhooks does nothing. What is due is looked for while isProven returns
// true: the state is the newest.
func startWebhooks(
	receivers []*receiver, events webhookEvents, k *keeper, isProven func() bool, log *slog.Logger,
) (stop func()) {
	if len(receivers) == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var hosts []string
	for _, r := range receivers {
		hosts = append(hosts, r.host)
		running.Go(func() { r.deliverAll(ctx) })
	}
	changed, stopListening := k.listen()
	w := &webhookWatch{
		keeper:    k,
		last:      k.lastEvent(),
		rules:     newNoticeRules(events, k.published.Load(), time.Now()),
		receivers: receivers,
		isProven:  isProven,
	}
	running.Go(func() { w.run(ctx, changed) })
	log.Info("telling webhooks", "hosts", strings.Join(hosts, ","))
	return func() {
		stopListening()
		cancel()
		running.Wait()
		for _, r := range receivers {
			r.drop()
		}
	}
}

// A webhookWatch notices what is due, and adds it to the queues of the receivers.
type webhookWatch struct {
	keeper    *keeper
	last      uint64 // the number of the last event that was looked at
	rules     *noticeRules
	receivers []*receiver
	isProven  func() bool
}

// run looks at new events whenever changed has a value, and at the published state each
// noticePeriod, until ctx ends.
func (w *webhookWatch) run(ctx context.Context, changed <-chan struct{}) {
	ticker := time.NewTicker(noticePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			var found []*event
			found, w.last = w.keeper.eventsAfter(w.last)
			for _, e := range found {
				if n, isWanted := w.rules.ofEvent(e); isWanted {
					w.tell(n)
				}
			}
		case <-ticker.C:
			if !w.isProven() {
				continue
			}
			for _, n := range w.rules.due(w.keeper.published.Load(), time.Now()) {
				w.tell(n)
			}
		}
	}
}

// tell adds a notice to all queues.
func (w *webhookWatch) tell(n notice) {
	for _, r := range w.receivers {
		r.add(n)
	}
}

// A receiver is a target with its queue. Its host is all that the log and the metrics have of
// its address.
type receiver struct {
	address string
	host    string
	form    noticeForm
	secret  []byte // signs what is sent; empty: nothing does
	client  *http.Client
	queue   chan notice
	metrics *metrics
	log     *slog.Logger

	onDrop, onFailure rate.Sometimes // limit the lines in the log
}

// newReceivers returns a receiver for each target.
func newReceivers(targets []webhookTarget, secret string, m *metrics, log *slog.Logger) []*receiver {
	receivers := make([]*receiver, len(targets))
	for i, t := range targets {
		receivers[i] = newReceiver(t, secret, m, log)
	}
	return receivers
}

// newReceiver returns a receiver with an empty queue. Redirects are not followed: whoever
// answers in the place of the receiver would choose where the secret goes.
func newReceiver(t webhookTarget, secret string, m *metrics, log *slog.Logger) *receiver {
	r := &receiver{
		address: t.address.String(),
		host:    t.address.Host,
		form:    noticeFormOf(t),
		secret:  []byte(secret),
		queue:   make(chan notice, maxNotices),
		metrics: m,
		log:     log,
		client: &http.Client{
			Transport:     http.DefaultTransport.(*http.Transport).Clone(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       noticeTime,
		},
		onDrop:    rate.Sometimes{Interval: time.Minute},
		onFailure: rate.Sometimes{Interval: time.Minute},
	}
	m.addReceiver(r.host)
	return r
}

// add adds a notice to the queue. It never blocks: where the queue is full, the notice is
// dropped and counted.
func (r *receiver) add(n notice) {
	r.metrics.queuedNotice(r.host, 1)
	select {
	case r.queue <- n:
	default:
		r.metrics.queuedNotice(r.host, -1)
		r.metrics.endedNotice(r.host, noticeDropped)
		r.onDrop.Do(func() {
			r.log.Warn("events for a webhook are dropped: it is too slow", "host", r.host,
				"waiting", maxNotices)
		})
	}
}

// deliverAll delivers what is in the queue, one after the other, until ctx ends.
func (r *receiver) deliverAll(ctx context.Context) {
	defer r.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-r.queue:
			r.metrics.queuedNotice(r.host, -1)
			r.deliver(ctx, n)
		}
	}
}

// drop drops what is in the queue, and counts it. Nothing adds to the queue or delivers meanwhile.
func (r *receiver) drop() {
	for len(r.queue) > 0 {
		<-r.queue
		r.metrics.queuedNotice(r.host, -1)
		r.metrics.endedNotice(r.host, noticeDropped)
	}
}

// deliver sends a notice, up to noticeTries times, and counts how that ended. When ctx ends, the
// notice is dropped.
func (r *receiver) deliver(ctx context.Context, n notice) {
	body, contentType := r.form.body(n)
	pause := noticeBackoff
	for try := 1; ctx.Err() == nil; try++ {
		failure := r.post(ctx, body, contentType)
		if failure == nil {
			r.metrics.endedNotice(r.host, noticeSent)
			return
		}
		if ctx.Err() != nil {
			break
		}
		if failure.isFinal || try == noticeTries {
			r.metrics.endedNotice(r.host, noticeFailed)
			r.onFailure.Do(func() {
				r.log.Warn("telling a webhook failed", "host", r.host, "event", n.name,
					"tries", try, "error", failure.err)
			})
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(pause, failure.after)):
		}
		pause *= 5
	}
	r.metrics.endedNotice(r.host, noticeDropped)
}

// A postFailure is why a notice was not taken.
type postFailure struct {
	err     error         // has no part of the address but its host
	isFinal bool          // it would be refused again
	after   time.Duration // that the receiver asks to wait, at most maxRetryAfter
}

// post sends a notice once; nil if the receiver has taken it.
func (r *receiver) post(ctx context.Context, body []byte, contentType string) *postFailure {
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, r.address, bytes.NewReader(body))
	if err != nil {
		return &postFailure{err: withoutAddress(err), isFinal: true}
	}
	call.Header.Set("Content-Type", contentType)
	call.Header.Set("User-Agent", "call-me/"+version())
	if len(r.secret) > 0 {
		call.Header.Set(signatureHeader, "sha256="+signatureOf(r.secret, body))
	}
	answer, err := r.client.Do(call)
	if err != nil {
		return &postFailure{err: withoutAddress(err)}
	}
	defer answer.Body.Close()
	io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	code := answer.StatusCode
	failure := &postFailure{err: fmt.Errorf("status %d", code)}
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		failure.err = fmt.Errorf("status %d: redirects are not followed", code)
		failure.isFinal = true
	case code < 500:
		failure.isFinal = code != http.StatusRequestTimeout && code != http.StatusTooManyRequests
	}
	if n, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && n > 0 {
		failure.after = min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	return failure
}

// withoutAddress returns an error of net/http without the address that it begins with.
func withoutAddress(err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		return withURL.Err
	}
	return err
}

// signatureOf returns the HMAC-SHA256 of a body in hexadecimal digits.
func signatureOf(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return fmt.Sprintf("%x", mac.Sum(nil))
}

// How a notice ended, as the metrics have it.
const (
	noticeSent    = "sent"
	noticeFailed  = "failed"
	noticeDropped = "dropped"
)

// addReceiver adds the metrics of a receiver, so that each begins at zero.
func (m *metrics) addReceiver(host string) {
	m.queuedNotices.WithLabelValues(host)
	for _, result := range []string{noticeSent, noticeFailed, noticeDropped} {
		m.notices.WithLabelValues(host, result)
	}
}

// queuedNotice counts a notice that has entered a queue (1) or left it (-1).
func (m *metrics) queuedNotice(host string, change float64) {
	m.queuedNotices.WithLabelValues(host).Add(change)
}

// endedNotice counts how a notice ended.
func (m *metrics) endedNotice(host, result string) { m.notices.WithLabelValues(host, result).Inc() }
