package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// decoded returns the body of a response as a value.
func decoded[T any](t *testing.T, r httpReply, status int) (value T) {
	t.Helper()
	r.want(t, status, "")
	if err := json.Unmarshal([]byte(r.body), &value); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
	return value
}

// Nobody gets a slot of a paused environment. A call of 2019 gets what it gets when the slot
// is held; other calls are told who has paused it, since when, until when, and why.
func TestAPausedEnvironmentRefusesAndSaysWhy(t *testing.T) {
	s := newSite(t, "")
	made := decoded[pausedJSON](t, s.call("PUT /pause?environment=uat&holder=ann&for=2h&reason=upgrade"), 200)
	if p := made.Pause; p.By != "ann" || p.Reason != "upgrade" || p.Environment != "uat" || p.All || p.Until == nil || made.Held != 0 {
		t.Errorf("the answer is %+v", made)
	}
	s.call("GET /maybe?environment=uat").want(t, 403, "")
	if r := s.call("POST /maybe?environment=uat").want(t, 403, ""); r.body != "" || r.Header.Get(versionHeader) != "" {
		t.Errorf("a call of 2019 got %q and %v", r.body, r.Header)
	}
	for _, call := range []string{"GET /maybe?environment=uat&holder=bob", "POST /maybe?environment=uat&holder=bob",
		"POST /maybe?environment=uat&holder=bob&id=12345678&wait=0s"} {
		told := decoded[errorJSON](t, s.call(call), 403)
		if len(told.Pauses) != 1 || told.Pauses[0].By != "ann" ||
			!strings.Contains(told.Message.String(), `"uat" is paused by ann since `) || !strings.Contains(told.Message.String(), ": upgrade") {
			t.Errorf("%s was told %+v", call, told)
		}
	}
	ended := decoded[resumedJSON](t, s.call("DELETE /pause?environment=uat&holder=bob"), 200)
	if ended.Resumed == nil || ended.Resumed.By != "ann" || len(ended.StillPaused) != 0 {
		t.Errorf("the answer is %+v", ended)
	}
	s.call("GET /environments?environment=uat").want(t, 200, `"holder":"bob"`)
	ended = decoded[resumedJSON](t, s.call("DELETE /pause?environment=uat"), 200)
	if ended.Resumed != nil || ended.StillPaused == nil {
		t.Errorf("to resume once more answers %+v", ended)
	}
}

// A second pause by another caller is 409 with the first one, unless it is forced. The same
// caller changes its own.
func TestThePauseOfAnotherNeedsForce(t *testing.T) {
	s := newSite(t, "uat:blue+green")
	first := decoded[pausedJSON](t, s.call("PUT /pause?environment=uat&slot=blue&holder=ann"), 200).Pause
	told := decoded[errorJSON](t, s.call("PUT /pause?environment=uat&slot=blue&holder=bob"), 409)
	if len(told.Pauses) != 1 || told.Pauses[0].By != "ann" || !strings.Contains(told.Message.String(), `blue of "uat" is paused by ann`) {
		t.Errorf("the refusal is %+v", told)
	}
	changed := decoded[pausedJSON](t, s.call("PUT /pause?environment=uat&slot=blue&holder=ann&for=1h"), 200).Pause
	if changed.Until == nil || !changed.Since.Equal(first.Since) {
		t.Errorf("changed: %+v, first %+v", changed, first)
	}
	r, _ := http.NewRequest("PUT", s.url+"/pause?environment=uat&slot=blue&force=1", nil)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("bob:"+testKey)))
	if p := decoded[pausedJSON](t, s.send(r), 200).Pause; p.By != "bob" || p.Until != nil {
		t.Errorf("by force: %+v", p)
	}
}

// The wrong parameters are told.
func TestPauseChecksItsParameters(t *testing.T) {
	s := newSite(t, "uat:blue+green")
	for call, status := range map[string]int{
		"PUT /pause":                                  422,
		"PUT /pause?environment=":                     422,
		"PUT /pause?environment=uat&all=1":            422,
		"PUT /pause?all=1&slot=blue":                  422,
		"PUT /pause?all=0":                            422,
		"PUT /pause?all=yes":                          422,
		"PUT /pause?environment=uat&slot=":            422,
		"PUT /pause?environment=uat&slot=red":         422,
		"PUT /pause?environment=uat&for=soon":         422,
		"PUT /pause?environment=uat&for=-1s":          422,
		"PUT /pause?environment=uat&force=perhaps":    422,
		"PUT /pause?environment=uat&environment=perf": 400,
		"PUT /pause?environment=perf":                 404,
		"DELETE /pause?environment=perf":              404,
		"DELETE /pause?environment=uat&slot=red":      422,
		"GET /pause":                                  405,
		"POST /pause?environment=uat":                 405,
	} {
		s.call(call).want(t, status, "")
	}
	s.call("PUT /pause?environment=uat&holder="+testKey).want(t, 400, "")
	if pauses := s.keeper.published.Load().stillPaused(everywhere, ""); len(pauses) != 0 {
		t.Errorf("%v are paused", pauses)
	}
}

// GET /environments shows the pauses, also of environments that nobody has used, and of those
// that come later. A resume says what still holds.
func TestThePausesAreShown(t *testing.T) {
	s := newSite(t, "uat:blue+green,perf")
	s.call("POST /maybe?environment=uat&slot=green&id=12345678&holder=carol")
	s.call("PUT /pause?environment=uat&slot=blue&holder=ann&reason=broken")
	s.call("PUT /pause?environment=uat&holder=bob")
	if p := decoded[pausedJSON](t, s.call("PUT /pause?all=1&holder=root&for=1h"), 200); !p.Pause.All || p.Held != 1 {
		t.Errorf("the pause of all is %+v", p)
	}
	for _, call := range []string{"GET /environments", "GET /environments?environment=uat"} {
		all := decoded[environmentsJSON](t, s.call(call), 200)
		if all.Pause == nil || all.Pause.By != "root" {
			t.Errorf("%s: the pause of all is %+v", call, all.Pause)
		}
		var shown []string
		for _, e := range all.Environments {
			for _, p := range e.Pauses {
				shown = append(shown, fmt.Sprintf("%s %d free: %s %s %v", e.Environment, e.Free, p.By, p.Slot, p.All))
			}
		}
		want := []string{"perf 0 free: root  true", "uat 0 free: root  true", "uat 0 free: bob  false", "uat 0 free: ann blue false"}
		if strings.Contains(call, "=uat") {
			want = want[1:]
		}
		if !slices.Equal(shown, want) {
			t.Errorf("%s shows %q, want %q", call, shown, want)
		}
	}
	s.call("GET /maybe?environment=perf").want(t, 403, "")
	still := func(call string) (names []string) {
		for _, p := range decoded[resumedJSON](t, s.call(call), 200).StillPaused {
			names = append(names, p.By.String())
		}
		return names
	}
	if got := still("DELETE /pause?environment=uat&slot=green"); !slices.Equal(got, []string{"root", "bob"}) {
		t.Errorf("green is still paused by %q", got)
	}
	if got := still("DELETE /pause?all=1"); !slices.Equal(got, []string{"bob", "ann"}) {
		t.Errorf("still paused by %q", got)
	}
	if got := still("DELETE /pause?environment=uat"); !slices.Equal(got, []string{"ann"}) {
		t.Errorf("uat is still paused by %q", got)
	}
	s.call("GET /maybe?environment=perf").want(t, 200, "")
	s.call("GET /maybe?environment=uat").want(t, 403, "")
}

// Pauses and their ends are in the history, the stream, the metrics and on the page; that of
// all is not taken for an environment without a name.
func TestPausesAreRecorded(t *testing.T) {
	s := newSite(t, "uat:blue+green")
	s.call("PUT /pause?environment=uat&slot=blue&holder=ann&reason=broken")
	s.call("PUT /pause?all=1&holder=root&reason=move")
	page := s.call("GET /").want(t, 200, "Every environment is paused").body
	for _, text := range []string{"<bdi>root</bdi>", "<bdi>move</bdi>", "<bdi>blue</bdi></th>", "paused by <bdi>ann</bdi>", "<bdi>broken</bdi>"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page has no %q", text)
		}
	}
	if n := strings.Count(page, `<tbody id=`); n != 1 {
		t.Errorf("the page shows %d environments", n)
	}
	s.call("GET /metrics").want(t, 200, `callme_slots{environment="uat",state="paused"} 2`)
	s.call("DELETE /pause?all=1&holder=bob")
	text := s.call("GET /metrics").want(t, 200, `callme_slots{environment="uat",state="paused"} 1`).body
	for _, line := range []string{`callme_slots{environment="uat",state="free"} 1`, `callme_pauses_total{environment="uat",event="paused"} 1`,
		`callme_pauses_total{environment="(all)",event="paused"} 1`, `callme_pauses_total{environment="(all)",event="resumed"} 1`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	var events []string
	for _, e := range s.historyOf("").Events {
		events = append(events, fmt.Sprint(e.Event, " ", e.All, " ", e.Environment, " ", e.Slot, " by ", e.By, " ", e.Reason, " ", e.From != ""))
	}
	want := []string{"resumed true   by bob move true", "paused true   by root move true", "paused false uat blue by ann broken true"}
	if !slices.Equal(events, want) {
		t.Errorf("the history is %q, want %q", events, want)
	}
	s.call("GET /?environment=uat").want(t, 200, "<td>all environments</td>")
	for name, want := range map[string]int{"uat": 3, "perf": 2} { // the pause of all is one of each
		if e := s.historyOf("environment=" + name).Events; len(e) != want {
			t.Errorf("the history of %s is %+v", name, e)
		}
	}
}
