package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A chat is a receiver of webhooks: an HTTP server within a bubble.
type chat struct {
	t        *testing.T
	mu       sync.Mutex
	got      []chatCall                                   // see calls
	answer   func(w http.ResponseWriter, r *http.Request) // nil: 200
	receiver *receiver
	metrics  *metrics
	log      lockedBuffer
}

type chatCall struct {
	at        time.Time
	kind      string // of the content
	signature string
	body      string
}

// newChat returns a chat and the receiver with which the server talks to it.
func newChat(t *testing.T, address, secret string) *chat {
	t.Helper()
	target, isURL := parseWebhook(address)
	if !isURL {
		t.Fatalf("%s is no address", address)
	}
	c := &chat{t: t, metrics: newMetrics()}
	callers := make(pipeListener)
	c.receiver = newReceiver(target, secret, c.metrics, slog.New(slog.NewTextHandler(&c.log, nil)))
	transport := c.receiver.client.Transport.(*http.Transport)
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case callers <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	server := &http.Server{Handler: c}
	go server.Serve(callers)
	t.Cleanup(func() { server.Close() })
	return c
}

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	c.got = append(c.got, chatCall{time.Now(), r.Header.Get("Content-Type"), r.Header.Get(signatureHeader), string(body)})
	c.mu.Unlock()
	if c.answer != nil {
		c.answer(w, r)
	}
}

// calls returns what the chat has got, once nothing happens any more.
func (c *chat) calls() []chatCall {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// texts returns the sentences that the chat has got, in JSON.
func (c *chat) texts() (all []string) {
	for _, call := range c.calls() {
		var m struct{ Text string }
		if err := json.Unmarshal([]byte(call.body), &m); err != nil {
			c.t.Fatalf("%s: %v", call.body, err)
		}
		all = append(all, strings.ReplaceAll(m.Text, "\u200b", ""))
	}
	return all
}

// count returns a counter of the receiver.
func (c *chat) count(result string) int {
	synctest.Wait()
	r := prometheus.NewRegistry()
	r.MustRegister(c.metrics.notices, c.metrics.queuedNotices)
	families, err := r.Gather()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if result == "queued" && f.GetName() == "callme_webhook_queued" {
				return int(m.GetGauge().GetValue())
			}
			for _, l := range m.GetLabel() {
				if l.GetName() == "host" && l.GetValue() != c.receiver.host {
					c.t.Errorf("the label of the host is %q", l.GetValue())
				}
				if l.GetName() == "result" && l.GetValue() == result {
					return int(m.GetCounter().GetValue())
				}
			}
		}
	}
	c.t.Fatalf("there is no count of %s", result)
	return 0
}

// told starts telling a chat of the events, for a rig.
func (g *rig) told(t *testing.T, c *chat, events string) (stop func()) {
	t.Helper()
	return g.toldWhile(t, c, events, func() bool { return true })
}

// toldWhile does the same while isProven is true.
func (g *rig) toldWhile(t *testing.T, c *chat, events string, isProven func() bool) (stop func()) {
	t.Helper()
	var e webhookEvents
	if err := e.Decode(events); err != nil {
		t.Fatal(err)
	}
	return startWebhooks([]*receiver{c.receiver}, e, g.keeper, isProven, quietLog())
}

const defaultWebhookEvents = "waiting:30m,expired,forced,taken,paused,resumed,kept,expiring:10m"

// grant gives a slot to a holder.
func (g *rig) grant(id, holder string, ttl time.Duration) {
	g.t.Helper()
	got := g.ask(&call{kind: callRequest, environment: "uat", request: request{id: id, holder: holder, ttl: ttl}})
	if got.err != nil {
		g.t.Fatal(got.err)
	}
}

func TestEachWantedEventIsOnePost(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		c := newChat(t, "http://chat.example/hooks/secret", "")
		g.grant("before-1", "before", time.Hour)
		g.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{}, force: true}})
		defer g.told(t, c, defaultWebhookEvents)()
		g.grant("12345678", "ann", time.Hour) // granted is not wanted
		g.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{
			force: true, by: "boss", origin: origin{from: "10.0.0.7"}, why: "she has gone home"}})
		g.grant("12345679", "bob", 5*time.Minute)
		time.Sleep(6 * time.Minute)
		g.grant("12345680", "job", time.Hour)
		g.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{
			selector: selector{id: "12345680"}, to: "job", ttl: 2 * time.Hour, why: "kept: exit 3; ./test.sh"}})
		g.ask(&call{kind: callPause, environment: everywhere, pause: pauseRequest{by: "boss", reason: "freeze", length: time.Hour}})
		time.Sleep(2 * time.Hour)
		want := []string{
			"uat: boss has ended the lease of ann by force, after 0s (she has gone home)",
			"uat: the lease of bob has expired after 5m",
			"uat is kept for job after 0s (exit 3; ./test.sh)",
			"all environments: paused by boss (freeze)",
			"all environments: the pause has ended after 1h",
			"uat: the lease of job ends at 02:06 UTC, in 10m, and nobody renews it",
			"uat: the lease of job has expired after 2h",
		}
		if got := c.texts(); !slices.Equal(got, want) {
			t.Errorf("the chat got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		var first struct{ Event eventJSON }
		if err := json.Unmarshal([]byte(c.calls()[0].body), &first); err != nil || first.Event.Event != "forced" ||
			first.Event.By != "boss" || first.Event.From != "10.0.0.7" || first.Event.Fence == 0 || first.Event.Number == 0 {
			t.Errorf("%v: %s", err, c.calls()[0].body)
		}
		if strings.Contains(c.calls()[0].body, "12345678") {
			t.Errorf("a request id is told: %s", c.calls()[0].body)
		}
		if c.count(noticeSent) != len(want) || c.count("queued") != 0 {
			t.Errorf("%d are counted as sent, %d wait", c.count(noticeSent), c.count("queued"))
		}
	})
}

func TestALongWaitIsToldOncePerEnvironmentAndHour(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		c := newChat(t, "http://chat.example/hooks/secret", "")
		defer g.told(t, c, "waiting:30m")()
		start := time.Now()
		g.grant("12345678", "ann", 0)
		first := g.asks("waiter-1", 3*time.Hour)
		time.Sleep(10 * time.Minute)
		second := g.asks("waiter-2", 3*time.Hour)
		time.Sleep(115 * time.Minute)
		var at []time.Duration
		synctest.Wait()
		for _, call := range c.calls() {
			at = append(at, call.at.Sub(start).Round(10*time.Second))
		}
		if want := []time.Duration{30 * time.Minute, 90 * time.Minute}; !slices.Equal(at, want) {
			t.Errorf("told after %v, want %v", at, want)
		}
		if got := c.texts()[0]; got != "uat: somebody has waited for 30m, 2 wait; ann has it" {
			t.Errorf("the chat got %q", got)
		}
		first.leave()
		second.leave()
	})
}

// A server that does not know whether it still leads tells nobody what is due: its successor may have
// ended the wait.
func TestNobodyIsToldOfAStateThatMayBeOld(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		c := newChat(t, "http://chat.example/hooks/secret", "")
		var isProven atomic.Bool
		defer g.toldWhile(t, c, "waiting:30m", isProven.Load)()
		g.grant("12345678", "ann", 0)
		waiter := g.asks("waiter-1", 3*time.Hour)
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if got := c.texts(); len(got) > 0 {
			t.Errorf("the chat got %q", got)
		}
		isProven.Store(true)
		time.Sleep(noticePeriod)
		synctest.Wait()
		if got := c.texts(); len(got) != 1 {
			t.Errorf("the chat got %q, want one text", got)
		}
		waiter.leave()
	})
}

func TestWhatIsPastItsThresholdAtAStartCountsAsTold(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.grant("12345678", "ann", 0)
		waits := g.asks("waiter-1", 3*time.Hour)
		time.Sleep(40 * time.Minute)
		c := newChat(t, "http://chat.example/hooks/secret", "")
		defer g.told(t, c, "waiting:30m,expired")()
		time.Sleep(59 * time.Minute)
		if got := c.texts(); len(got) != 0 {
			t.Errorf("the chat got %q", got)
		}
		time.Sleep(2 * time.Minute)
		if got := c.texts(); len(got) != 1 {
			t.Errorf("after an hour the chat got %q", got)
		}
		waits.leave()
	})
}

// A lease that is renewed all the time is not told, however near its end is: run renews in thirds
// of its ttl.
func TestAnEndingLeaseIsToldOnceAndOnlyIfNobodyRenewsIt(t *testing.T) {
	renewing := func(g *rig, id string, every time.Duration, times int) {
		for range times {
			time.Sleep(every)
			r := renewal{selector: selector{id: id}, at: time.Now()}
			if got := g.ask(&call{kind: callRenew, environment: "uat", renewal: r}); got.err != nil {
				g.t.Fatal(got.err)
			}
		}
	}
	for name, c := range map[string]struct {
		ttl, claim time.Duration
		during     func(g *rig)
		want       []time.Duration // after the grant
	}{
		"nobody renews":          {ttl: time.Hour, want: []time.Duration{50 * time.Minute}},
		"a short one":            {ttl: 10 * time.Minute},
		"no end":                 {ttl: 0},
		"hardly longer":          {ttl: 10*time.Minute + 30*time.Second, want: []time.Duration{time.Minute}},
		"run":                    {ttl: 11 * time.Minute, during: func(g *rig) { renewing(g, "12345678", 40*time.Second, 90) }, want: []time.Duration{65*time.Minute + 30*time.Second}},
		"renewed by hand, twice": {ttl: time.Hour, during: func(g *rig) { renewing(g, "12345678", 55*time.Minute, 2) }, want: []time.Duration{50 * time.Minute, 105 * time.Minute, 160 * time.Minute}},
		"not confirmed yet":      {ttl: time.Hour, claim: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "", func(t *testing.T, g *rig) {
				chat := newChat(t, "http://chat.example/hooks/secret", "")
				defer g.told(t, chat, "expiring:10m")()
				start := time.Now()
				g.ask(&call{kind: callRequest, environment: "uat", request: request{id: "12345678", ttl: c.ttl}, claim: c.claim})
				if c.during != nil {
					c.during(g)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				var at []time.Duration
				for _, call := range chat.calls() {
					at = append(at, call.at.Sub(start).Round(10*time.Second))
				}
				if !slices.Equal(at, c.want) {
					t.Errorf("told after %v, want %v", at, c.want)
				}
			})
		})
	}
}

func TestANoticeIsTriedThreeTimes(t *testing.T) {
	status := func(codes ...int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://elsewhere.example/")
			w.WriteHeader(codes[0])
			codes = append(codes[1:], 200)
		}
	}
	limited := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "20")
		w.WriteHeader(429)
	}
	hangs := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		tries  []time.Duration
		result string
		log    string
	}{
		"500 twice":    {status(500, 500), []time.Duration{0, 1, 6}, noticeSent, ""},
		"500 always":   {status(500, 500, 500), []time.Duration{0, 1, 6}, noticeFailed, `event=expired tries=3 error="status 500"`},
		"a redirect":   {status(307), []time.Duration{0}, noticeFailed, `tries=1 error="status 307: redirects are not followed"`},
		"gone":         {status(404), []time.Duration{0}, noticeFailed, `tries=1 error="status 404"`},
		"asks to wait": {limited, []time.Duration{0, 20, 40}, noticeFailed, `tries=3 error="status 429"`},
		"hangs":        {hangs, []time.Duration{0, 11, 26}, noticeFailed, `tries=3 error="context deadline exceeded`},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "", func(t *testing.T, g *rig) {
				chat := newChat(t, "http://user:pass@chat.example/hooks/secret?token=t0ken", "")
				chat.answer = c.answer
				defer g.told(t, chat, "expired")()
				g.grant("12345678", "ann", time.Minute)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				var at []time.Duration
				for _, call := range chat.calls() {
					at = append(at, call.at.Sub(chat.calls()[0].at).Round(time.Second)/time.Second)
				}
				if !slices.Equal(at, c.tries) || chat.count(c.result) != 1 {
					t.Errorf("tries after %v s, want %v; %d %s", at, c.tries, chat.count(c.result), c.result)
				}
				said := chat.log.String()
				if !strings.Contains(said, c.log) || c.log == "" && said != "" {
					t.Errorf("the log is %q, want %q", said, c.log)
				}
				for _, secret := range []string{"hooks", "t0ken", "pass", "elsewhere"} {
					if strings.Contains(said, secret) {
						t.Errorf("%s is in the log: %s", secret, said)
					}
				}
			})
		})
	}
}

// A receiver that hangs for an hour holds up no grant and no other receiver: its queue takes
// 1,000 events, the others are dropped and counted.
func TestAReceiverThatHangsHoldsUpNobody(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		stuck, well := newChat(t, "http://stuck.example/hooks/secret", ""), newChat(t, "http://chat.example/x", "")
		stuck.answer = func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		events := webhookEvents{"granted": 0}
		stop := startWebhooks([]*receiver{stuck.receiver, well.receiver}, events, g.keeper, func() bool { return true }, quietLog())
		const grants = 1150
		start := time.Now()
		for i := range grants {
			before := time.Now()
			g.grant(fmt.Sprintf("request-%d", i), "ann", 0)
			g.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{id: fmt.Sprintf("request-%d", i)}}})
			if took := time.Since(before); took > 0 {
				t.Fatalf("grant %d took %v", i, took)
			}
			synctest.Wait()
			time.Sleep(time.Hour / grants)
		}
		took := time.Since(start)
		tried := len(stuck.calls()) / noticeTries
		dropped, failed, queued := stuck.count(noticeDropped), stuck.count(noticeFailed), stuck.count("queued")
		if dropped+failed+queued+1 != grants || queued > maxNotices || dropped == 0 || failed < tried-1 {
			t.Errorf("in %v %d were dropped, %d failed, %d wait, of %d", took, dropped, failed, queued, grants)
		}
		if got := well.count(noticeSent); got != grants {
			t.Errorf("the other receiver got %d of %d", got, grants)
		}
		said := stuck.log.String()
		if !strings.Contains(said, `msg="events for a webhook are dropped: it is too slow" host=stuck.example`) ||
			strings.Count(said, "\n") > 2*60+2 {
			t.Errorf("the log is\n%s", said)
		}
		before := time.Now()
		stop()
		if left, now := stuck.count("queued"), stuck.count(noticeDropped); left != 0 || now != dropped+queued+1 {
			t.Errorf("when it stops %d wait, and %d were dropped of %d and %d that waited", left, now, dropped, queued)
		}
		if took := time.Since(before); took > 0 {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestWhatReceiversGetIsSigned(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		c := newChat(t, "http://chat.example/hooks/secret", "It's a Secret to Everybody")
		defer g.told(t, c, "granted")()
		g.grant("12345678", "ann", 0)
		synctest.Wait()
		if want := "sha256=" + signatureOf([]byte("It's a Secret to Everybody"), []byte(c.calls()[0].body)); c.calls()[0].signature != want {
			t.Errorf("the signature is %q, want %q", c.calls()[0].signature, want)
		}
	})
	// The example of https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
	if got := signatureOf([]byte("It's a Secret to Everybody"), []byte("Hello, World!")); got !=
		"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17" {
		t.Errorf("the signature is %s", got)
	}
}

func TestTextOfOthersNeitherCallsNorLinks(t *testing.T) {
	hostile := untrusted("<!channel> @channel <https://evil.example|x> https://evil.example [x](evil.example) " +
		"![i](//evil.example)\n&lt;!here&gt; www.evil.example\u202e `a`")
	n := notice{"granted", noticeJSON{eventJSON: eventJSON{Event: "granted", Environment: "uat", Holder: hostile, Reason: hostile}}}
	for address, want := range map[string]struct {
		kind      string
		forbidden []string
		required  string
	}{
		"https://hooks.slack.com/services/T/B/x":  {"application/json", []string{"<", ">"}, "&lt;!channel&gt;"},
		"https://chat.example/hooks/x":            {"application/json", []string{"<", ">"}, "‹!channel›"},
		"https://chat.googleapis.com/v1/spaces/x": {"application/json", []string{"<", ">"}, "‹!channel›"},
		"https://ntfy.example/topic":              {"text/plain; charset=utf-8", nil, "<!channel>"},
		"ntfy.example/topic":                      {"text/plain; charset=utf-8", nil, "<!channel>"},
		"ntfy+http://push.example:8080/topic":     {"text/plain; charset=utf-8", nil, "<!channel>"},
	} {
		target, isURL := parseWebhook(address)
		if !isURL {
			t.Fatalf("%s is no address", address)
		}
		body, kind := noticeFormOf(target).body(n)
		text := string(body)
		if kind == "application/json" {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(body, &m); err != nil {
				t.Fatal(err)
			}
			json.Unmarshal(m["text"], &text)
			var e struct{ Holder string }
			json.Unmarshal(m["event"], &e)
			isGoogle := strings.Contains(address, "google")
			if isGoogle != (m["event"] == nil) || !isGoogle && e.Holder != string(hostile) {
				t.Errorf("%s: %s", address, body)
			}
		}
		if kind != want.kind || !strings.Contains(text, want.required) {
			t.Errorf("%s gets %s, %s", address, kind, text)
		}
		for _, bad := range append(want.forbidden, "@channel", "://", "](", "evil.example", "www.evil", "//", "\n", "\u202e") {
			if strings.Contains(text, bad) {
				t.Errorf("%s: %q is in %q", address, bad, text)
			}
		}
	}
}

// Every name has its sentence, of known length however long the texts of others are.
func TestEveryEventHasASentence(t *testing.T) {
	long := untrusted(strings.Repeat("x", 1000))
	for _, name := range webhookNames {
		until := time.Now()
		n := notice{name, noticeJSON{Until: &until, eventJSON: eventJSON{Event: untrusted(name), Environment: long,
			Holder: long, Reason: long, By: long, To: long, Why: long, From: "10.0.0.7"}}}
		text := n.sentence(formJSON.escape)
		isOther := strings.Contains(text, "has ended: ")
		isRequest := slices.Contains([]string{"left", "abandoned", "undeclared"}, name)
		if len(text) > 1500 || isOther != isRequest || strings.Contains(text, "%!") {
			t.Errorf("%s: %s", name, text)
		}
	}
	for kind, name := range eventNames {
		if kind != eventClosed && !slices.Contains(webhookNames, name) {
			t.Errorf("%s cannot be wanted", name)
		}
	}
}

func TestTheConfigurationOfWebhooks(t *testing.T) {
	for address, want := range map[string]string{
		"https://hooks.slack.com/services/T/B/x":       "https://hooks.slack.com/services/T/B/x false",
		" ntfy.example/topic ,http://[::1]:80/a":       "https://ntfy.example/topic true, http://[::1]:80/a false",
		"https://user:pass@ntfy.example:8443/t?auth=x": "https://user:pass@ntfy.example:8443/t?auth=x true",
		"ntfy+https://push.example/topic":              "https://push.example/topic true",
	} {
		c := serverConfig{Webhook: address}
		targets, err := c.webhooks()
		var got []string
		for _, target := range targets {
			got = append(got, fmt.Sprint(target.address, " ", target.isPlain))
		}
		if strings.Join(got, ", ") != want || err != nil {
			t.Errorf("%s: %q, %v", address, got, err)
		}
	}
	for _, address := range []string{"ftp://s3cret.example", "https://", "https://a,", "https://s3cret%zz", "https://a/#s3cret", ",", "a b://s3cret"} {
		setVariables(t, map[string]string{"API_KEY": "k", "CALL_ME_WEBHOOK": address})
		var c serverConfig
		if err := readConfig(&c); err == nil || !strings.HasPrefix(err.Error(), "reading CALL_ME_WEBHOOK: the ") ||
			strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for text, want := range map[string]string{
		"waiting":      `no list of events such as waiting:30m,expired,expiring:10m: "waiting"`,
		"expired:5m":   `no list of events such as waiting:30m,expired,expiring:10m: "expired:5m"`,
		"expierd":      `no list of events: "expierd" is none; did you mean "expired"?`,
		"waiting:soon": `no list of events: "soon" is not a time such as 30m`,
		"waiting:0s":   `no list of events: "0s" is not a time such as 30m`,
		"expired,":     `no list of events: "" is none`,
	} {
		var e webhookEvents
		if err := e.Decode(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	setVariables(t, map[string]string{"API_KEY": "k"})
	var c serverConfig
	if err := readConfig(&c); err != nil || len(c.WebhookEvents) != 8 || c.WebhookEvents[webhookWaiting] != 30*time.Minute ||
		c.WebhookEvents[webhookExpiring] != 10*time.Minute {
		t.Errorf("the default is %v, %v", c.WebhookEvents, err)
	}
	var b bytes.Buffer
	json.NewEncoder(&b).Encode(c.WebhookEvents)
	for entry := range strings.SplitSeq(defaultWebhookEvents, ",") {
		if name, _, _ := strings.Cut(entry, ":"); !c.WebhookEvents.has(name) {
			t.Errorf("%s is not in %s", name, b.String())
		}
	}
}
