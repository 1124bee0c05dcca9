package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"
)

// An issuingCI is a real issuer: it has a discovery document, keys, and signs tokens.
type issuingCI struct {
	t       *testing.T
	url     string
	mu      sync.Mutex
	key     *rsa.PrivateKey
	keyID   string
	fetches atomic.Int32  // of the keys
	asked   atomic.Int32  // for the discovery document
	hang    chan struct{} // if not nil: answers wait for its end
	isDown  atomic.Bool
}

// signingKeys are made once: that takes long.
var signingKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	return keys
})

func newIssuingCI(t *testing.T) *issuingCI {
	c := &issuingCI{t: t, key: signingKeys()[0], keyID: "first"}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

func (c *issuingCI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "keys") {
		c.fetches.Add(1)
	} else {
		c.asked.Add(1)
	}
	if c.hang != nil {
		select {
		case <-c.hang:
		case <-r.Context().Done():
		}
	}
	if c.isDown.Load() {
		w.WriteHeader(503)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &oidctest.Server{PublicKeys: []oidctest.PublicKey{
		{PublicKey: c.key.Public(), KeyID: c.keyID, Algorithm: oidc.RS256}}}
	s.SetIssuer(c.url)
	s.ServeHTTP(w, r)
}

// rotate replaces the key.
func (c *issuingCI) rotate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.keyID = signingKeys()[1], "second"
}

// claims are those of a job of a run, which end after an hour, with changes. An empty value
// removes a claim.
func (c *issuingCI) claims(run string, changes map[string]string) string {
	all := map[string]string{"iss": `"` + c.url + `"`, "aud": `"call-me"`, "sub": `"repo:acme/shop"`,
		"repository_owner": `"acme"`, "repository": `"acme/shop"`, "run_id": `"` + run + `"`,
		"iat": fmt.Sprint(time.Now().Unix()), "exp": fmt.Sprint(time.Now().Add(time.Hour).Unix())}
	for name, value := range changes {
		all[name] = value
	}
	var texts []string
	for name, value := range all {
		if value != "" {
			texts = append(texts, fmt.Sprintf("%q: %s", name, value))
		}
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

// token returns a signed token with the claims.
func (c *issuingCI) token(run string, changes map[string]string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return oidctest.SignIDToken(c.key, c.keyID, oidc.RS256, c.claims(run, changes))
}

// trust makes a site accept the tokens of issuers, by an entry for each.
func (s *site) trust(systems ...*issuingCI) {
	s.t.Helper()
	var entries []string
	for _, c := range systems {
		entries = append(entries, `{"issuer": "`+c.url+`", "audience": "call-me", "match": {"repository_owner": "acme"},
			"name": "github:{repository}", "holder": "github:{repository}/run/{run_id}"}`)
	}
	all, err := parseOIDC([]byte("[" + strings.Join(entries, ",") + "]"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.server.tokens.Store(newTokenVerifier(all, s.server.tokens.Load()))
}

// bearing makes a call with a token.
func (s *site) bearing(token, methodAndPath string) httpReply {
	s.t.Helper()
	method, path, _ := strings.Cut(methodAndPath, " ")
	r, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return s.send(r)
}

func at(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }

func TestAJobIsLetInByItsToken(t *testing.T) {
	s, c := newSite(t, ""), newIssuingCI(t)
	s.trust(c)
	environment := 0
	for sent, want := range map[string]string{
		"deploy":                      "github:acme/shop/run/7/deploy",
		"github:acme/shop/run/7/test": "github:acme/shop/run/7/test",
		"github:acme/shop/run/7":      "github:acme/shop/run/7",
		"github:acme/shop/run/70/x":   "github:acme/shop/run/7/70/x",
		"github:acme/other/run/8/x":   "github:acme/shop/run/7/other/run/8/x",
		"github:acme/":                "github:acme/shop/run/7",
		strings.Repeat("long", 60):    "",
	} {
		r := s.bearing(c.token("7", nil), "POST /maybe?environment="+fmt.Sprint("env", environment)+"&id=12345678&holder="+sent).want(t, 201, "")
		l := r.lease(t)
		environment++
		if want != "" && string(l.Holder) != want || !strings.HasPrefix(string(l.Holder), "github:acme/shop/run/7") || len(l.Holder) > maxHolder {
			t.Errorf("%s becomes %s", sent, l.Holder)
		}
	}
	// Of 2019: no holder, and an answer without a body. What the token proves is the holder.
	if r := s.bearing(c.token("8", nil), "POST /maybe?environment=uat").want(t, 201, ""); r.body != "" {
		t.Errorf("%q", r.body)
	}
	s.call("GET /environments?environment=uat").want(t, 200, `"holder":"github:acme/shop/run/8"`)
	s.call("GET /").want(t, 200, `✓ <bdi>github:acme/shop/run/8</bdi>`)
	// Another run has another name, whatever it sends, and two jobs of a run can share one.
	s.bearing(c.token("9", nil), "DELETE /maybe?environment=uat&holder=github:acme/shop/run/8").want(t, 409, "")
	s.bearing(c.token("8", nil), "DELETE /maybe?environment=uat&holder=github:acme/shop/run/8").want(t, 204, "")
	if n := c.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	s, c, other := newSite(t, ""), newIssuingCI(t), newIssuingCI(t)
	other.key, other.keyID = signingKeys()[1], "other"
	untrusted := newIssuingCI(t)
	s.trust(c, other)
	unsigned := func(header, payload string) string {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(header)) + "." + encode([]byte(payload)) + "."
	}
	parts := strings.Split(c.token("7", nil), ".")
	for name, token := range map[string]struct{ token, why string }{
		"wrong audience":        {c.token("7", map[string]string{"aud": `"another"`}), "another audience"},
		"wrong owner":           {c.token("7", map[string]string{"repository_owner": `"evil"`}), "no entry"},
		"no owner":              {c.token("7", map[string]string{"repository_owner": ""}), "no entry"},
		"alg none":              {unsigned(`{"alg":"none"}`, c.claims("7", nil)), "not signed"},
		"HMAC":                  {unsigned(`{"alg":"HS256","kid":"first"}`, c.claims("7", nil)) + "AAAA", "not signed"},
		"not valid yet":         {c.token("7", map[string]string{"nbf": at(2 * time.Minute)}), "not valid yet"},
		"of the future":         {c.token("7", map[string]string{"iat": at(2 * time.Minute)}), "in the future"},
		"expired":               {c.token("7", map[string]string{"exp": at(-2 * time.Minute)}), "has ended"},
		"without end":           {c.token("7", map[string]string{"exp": ""}), "no end"},
		"without run":           {c.token("7", map[string]string{"run_id": ""}), "no claim run_id"},
		"unknown issuer":        {untrusted.token("7", nil), "not trusted"},
		"another's key":         {oidctest.SignIDToken(other.key, other.keyID, oidc.RS256, c.claims("7", nil)), "not signed"},
		"another's key, id":     {oidctest.SignIDToken(other.key, c.keyID, oidc.RS256, c.claims("7", nil)), "not signed"},
		"a changed claim":       {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(c.claims("8", nil))) + "." + parts[2], "not signed"},
		"a name of no key":      {c.token("7", map[string]string{"repository": `"a b"`}), "no key can have"},
		"a holder of a command": {c.token("7", map[string]string{"run_id": `"##vso[x]"`}), "no request can have"},
		"no token":              {"nonsense", "no token"},
		"no JSON":               {unsigned("x", "x"), "no claims"},
	} {
		r := s.bearing(token.token, "GET /environments")
		if r.StatusCode != 401 || !strings.Contains(r.body, token.why) {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	// Within the minute by which clocks may differ:
	for name, changes := range map[string]map[string]string{
		"not valid yet": {"nbf": at(50 * time.Second)}, "expired": {"exp": at(-50 * time.Second)}, "of the future": {"iat": at(50 * time.Second)},
	} {
		if r := s.bearing(c.token("7", changes), "GET /environments"); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	if n, m := untrusted.asked.Load(), untrusted.fetches.Load(); n+m != 0 {
		t.Errorf("an unknown issuer was asked %d times", n+m)
	}
	if n := c.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	large := c.token("7", map[string]string{"x": `"` + strings.Repeat("x", 100_000) + `"`})
	answer := s.raw("GET /environments HTTP/1.1\r\nHost: call-me\r\nAuthorization: Bearer " + large + "\r\n\r\n")
	if !strings.Contains(answer, " 431 ") && !strings.Contains(answer, "reset") {
		t.Errorf("100 kB: %s", answer)
	}
	s.call("GET /environments").want(t, 200, "")
}

// The keys of an issuer are fetched anew when a token has a new one, and once a minute at most
// whatever keys tokens name. fetchAgain makes that minute pass.
func TestKeysAreRotatedAndFetchedOnceAMinute(t *testing.T) {
	s, c := newSite(t, ""), newIssuingCI(t)
	s.trust(c)
	fetchAgain := func() {
		keys := s.server.tokens.Load().issuers[c.url].keys
		keys.mu.Lock()
		defer keys.mu.Unlock()
		keys.last = keys.last.Add(-fetchPeriod)
	}
	s.bearing(c.token("7", nil), "GET /environments").want(t, 200, "")
	for i := range 20 {
		forged := oidctest.SignIDToken(signingKeys()[1], fmt.Sprint("key-", i), oidc.RS256, c.claims("7", nil))
		s.bearing(forged, "GET /environments").want(t, 401, "not signed")
	}
	if n := c.fetches.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times in a minute", n)
	}
	old := c.token("7", nil)
	c.rotate()
	fetchAgain()
	s.bearing(c.token("7", nil), "GET /environments").want(t, 200, "")
	// go-oidc answers whoever waits for the keys a moment before it forgets the old ones.
	for range 100 {
		if s.bearing(old, "GET /environments").StatusCode == 401 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.bearing(old, "GET /environments").want(t, 401, "not signed")
	if n := c.fetches.Load(); n != 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	c.isDown.Store(true)
	fetchAgain()
	s.bearing(oidctest.SignIDToken(c.key, "unknown", oidc.RS256, c.claims("7", nil)), "GET /environments").want(t, 503, "does not answer")
	s.bearing(c.token("7", nil), "GET /environments").want(t, 200, "") // its key is there
	s.trust(c)                                                         // as on SIGHUP
	s.bearing(c.token("7", nil), "GET /environments").want(t, 200, "")
}

// An issuer that hangs stops neither keys nor the tokens of other issuers.
func TestAnIssuerThatHangsStopsNobodyElse(t *testing.T) {
	s, stuck, well := newSite(t, ""), newIssuingCI(t), newIssuingCI(t)
	stuck.hang = make(chan struct{})
	s.trust(stuck, well)
	token := stuck.token("7", nil)
	answered := make(chan httpReply)
	for range 3 {
		go func() { answered <- s.bearing(token, "GET /environments") }()
	}
	for stuck.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.call("GET /environments").want(t, 200, "")
	s.bearing(well.token("7", nil), "GET /environments").want(t, 200, "")
	select {
	case r := <-answered:
		t.Errorf("answered %d, while its issuer hangs", r.StatusCode)
	default:
	}
	close(stuck.hang)
	for range 3 {
		(<-answered).want(t, 200, "")
	}
	if n := stuck.asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

// A token that has ended lets in calls by the id of a request that is known, for a day.
func TestATokenThatHasEndedIsGoodForItsRequest(t *testing.T) {
	s, c := newSite(t, ""), newIssuingCI(t)
	s.trust(c)
	s.bearing(c.token("7", nil), "POST /maybe?environment=uat&id=holding-1&ttl=1h&holder=a").want(t, 201, "")
	s.bearing(c.token("8", nil), "POST /maybe?environment=uat&id=waiting-1&wait=0s&holder=b").want(t, 403, "")
	ended := func(run string, ago time.Duration) string { return c.token(run, map[string]string{"exp": at(-ago)}) }
	for _, denied := range []string{"GET /environments", "GET /maybe?environment=uat", "POST /maybe?environment=uat&id=unknown-1",
		"POST /maybe?environment=other&id=holding-1", "PUT /maybe?environment=uat&holder=a", "DELETE /maybe?environment=uat&holder=a",
		"POST /maybe?environment=uat", "DELETE /maybe?environment=uat", "PUT /pause?environment=uat",
		"POST /maybe?environment=uat&id=holding-1&take=1&reason=r", "PUT /maybe?environment=uat&environment=other&id=holding-1"} {
		s.bearing(ended("7", time.Hour), denied).want(t, 401, "has ended")
	}
	s.bearing(ended("7", time.Hour), "PUT /maybe?environment=uat&id=holding-1").want(t, 200, "")
	s.bearing(ended("7", 25*time.Hour), "PUT /maybe?environment=uat&id=holding-1").want(t, 401, "has ended")
	s.bearing(ended("8", time.Hour), "POST /maybe?environment=uat&id=waiting-1&wait=0s&holder=b").want(t, 403, "")
	s.bearing(ended("8", time.Hour), "PUT /maybe?environment=uat&id=holding-1").want(t, 401, "")
	s.bearing(ended("7", time.Hour), "DELETE /maybe?environment=uat&id=holding-1").want(t, 204, "")
	s.bearing(ended("7", time.Hour), "DELETE /maybe?environment=uat&id=holding-1").want(t, 204, "") // the answer was lost
	s.bearing(ended("8", time.Hour), "POST /maybe?environment=uat&id=waiting-1&wait=0s&holder=b").want(t, 201, "")
}

// A poll outlives its token.
func TestAPollOutlivesItsToken(t *testing.T) {
	s, c := newSite(t, ""), newIssuingCI(t)
	s.trust(c)
	s.call("POST /maybe?environment=uat&id=12345678")
	answered := make(chan httpReply)
	token := c.token("7", map[string]string{"exp": at(-clockSkew + 2*time.Second)})
	go func() { answered <- s.bearing(token, "POST /maybe?environment=uat&id=waiting-1&wait=1m") }()
	for s.bearing(token, "GET /maybe?environment=uat&holder=x").StatusCode != 401 { // it has ended
		time.Sleep(10 * time.Millisecond)
	}
	s.call("DELETE /maybe?environment=uat&id=12345678").want(t, 204, "")
	(<-answered).want(t, 201, "")
}

func TestAFileOfIssuersIsReadOrRejected(t *testing.T) {
	entry := func(field, value string) string {
		fields := map[string]string{"issuer": `"https://ci.example"`, "audience": `"call-me"`, "match": `{"owner": "acme"}`, "name": `"ci:{project}"`}
		fields[field] = value
		var texts []string
		for name, value := range fields {
			if value != "" {
				texts = append(texts, fmt.Sprintf("%q: %s", name, value))
			}
		}
		return "[{" + strings.Join(texts, ", ") + "}]"
	}
	for text, want := range map[string]string{
		entry("", ""):                                  "",
		entry("holder", `"ci:{project}/{job}"`):        "",
		entry("match", `{"owner": ["acme", "other"]}`): "",
		entry("environments", `["uat", "perf-*"]`):     "",
		entry("max-ttl", `"4h"`):                       "",
		entry("max-priority", `10`):                    "",
		"":                                             "no JSON array",
		"{}":                                           "no JSON array",
		"[]":                                           "no entry",
		`["x"]`:                                        "entry 1",
		entry("issuer", `"ci.example"`):                "entry 1: the issuer is no URL",
		entry("issuer", `"http://ci.example"`):         "entry 1: the issuer is no URL",
		entry("issuer", ""):                            "entry 1: the issuer is no URL",
		entry("audience", ""):                          "entry 1: it has no audience",
		entry("match", ""):                             "entry 1: it matches no claim",
		entry("match", "{}"):                           "entry 1: it matches no claim",
		entry("match", `{"owner": ""}`):                "entry 1: match has an empty value",
		entry("match", `{"owner": []}`):                "entry 1: match has an empty value",
		entry("match", `{"owner": 7}`):                 "entry 1: a claim must be",
		entry("name", ""):                              "entry 1: it has no name",
		entry("name", `"ci:{project"`):                 "entry 1: the name has a brace",
		entry("holder", `"ci:}"`):                      "entry 1: the holder has a brace",
		entry("role", `"god"`):                         "entry 1: the role is none",
		entry("max-ttl", `"soon"`):                     "entry 1: max-ttl is not a duration",
		entry("max-places", `0`):                       "entry 1: max-places",
		entry("environments", `[]`):                    "entry 1: environments is empty",
		entry("environments", `["a*b"]`):               "entry 1: environments has",
		entry("typo", `1`):                             `entry 1: unknown field "typo"`,
	} {
		path := filepath.Join(t.TempDir(), "oidc.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		setVariables(t, map[string]string{"API_KEY": "k", "CALL_ME_OIDC_FILE": path})
		var c serverConfig
		err := readConfig(&c)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	setVariables(t, map[string]string{"API_KEY": "k", "CALL_ME_OIDC_FILE": "no/such/file"})
	if err := readConfig(&serverConfig{}); err == nil || !strings.Contains(err.Error(), "CALL_ME_OIDC_FILE") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// The entries that the documentation shows are right.
func TestTheDocumentedEntriesAreRead(t *testing.T) {
	text, err := os.ReadFile("docs/oidc.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```json\n")
	if len(blocks) < 6 {
		t.Errorf("%d entries", len(blocks)-1)
	}
	for _, block := range blocks[1:] {
		entry, _, _ := strings.Cut(block, "```")
		if _, err := parseOIDC([]byte(entry)); err != nil {
			t.Errorf("%v:\n%s", err, entry)
		}
	}
}
