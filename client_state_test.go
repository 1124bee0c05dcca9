package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// clientOf returns a client of a server that gives one answer.
func clientOf(t *testing.T, answer http.HandlerFunc) *client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, apiVersion)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return &client{addresses: newAddresses(serverURLs{s.URL}), http: s.Client()}
}

// An answer that is cut short, or followed by anything else, is no answer: nothing of it is
// returned.
func TestAStateThatIsCutShortIsNoState(t *testing.T) {
	var all environmentsJSON
	for i := range 2000 {
		name := untrusted(fmt.Sprint("environment-", i))
		all.Environments = append(all.Environments,
			environmentJSON{Environment: name, Slots: []slotJSON{{Slot: name}}, Queue: []waiterJSON{}})
	}
	encoded, err := encodeJSON(all)
	if err != nil {
		t.Fatal(err)
	}
	whole := string(encoded)
	middle := strings.Index(whole, `,{"environment":"environment-1500"`)
	for _, test := range []struct {
		name, text string
		abort      bool
		want       error
	}{
		{"all of it", whole, false, nil},
		{"with a field of a later version", `{"more":{"a":[1,2]},` + whole[1:], false, nil},
		{"the connection is reset", whole[:middle], true, errUnreachable},
		{"a proxy ends it between two environments", whole[:middle], false, errUnreachable},
		{"a proxy ends it within one", whole[:middle+20], false, errUnreachable},
		{"without the last bracket", strings.TrimSuffix(whole, "}\n"), false, errUnreachable},
		{"nothing", "", false, errUnreachable},
		{"two answers", whole + whole, false, errNotCallMe},
		{"other JSON", `{"status":"ok"}`, false, errNotCallMe},
		{"a list", `[]`, false, errNotCallMe},
		{"null", `{"environments":null}`, false, errNotCallMe},
		{"no JSON", `<html>`, false, errNotCallMe},
		{"an environment that is none", `{"environments":[7]}`, false, errNotCallMe},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte(test.text))
				if test.abort {
					http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
			})
			got, err := c.environments(context.Background(), "")
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if want := map[bool]int{true: 2000}[test.want == nil]; len(got.Environments) != want {
				t.Errorf("%d environments", len(got.Environments))
			}
		})
	}
}

// An interrupt while the state arrives is the context's error, not an unreachable server.
func TestAnInterruptWhileTheStateArrives(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"environments":[`))
		http.NewResponseController(w).Flush()
		interrupt()
		<-r.Context().Done()
	})
	if _, err := c.environments(ctx, ""); !errors.Is(err, context.Canceled) || errors.Is(err, errUnreachable) {
		t.Errorf("%v", err)
	}
}

// status --json prints one environment after the other what json prints of all.
func TestEnvironmentsArePrintedAsJSONPrintsThem(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		all := environmentsJSON{Environments: []environmentJSON{}}
		for i := range n {
			lease := leaseJSON{Environment: "uat", Slot: "uat", Holder: "<a&b>\x1b", Fence: uint64(i)}
			all.Environments = append(all.Environments, environmentJSON{
				Environment: "uat", Slots: []slotJSON{{Slot: "uat", Lease: &lease}, {Slot: "b"}}, Queue: []waiterJSON{}})
		}
		var got, want bytes.Buffer
		if err := (&terminal{out: &got}).environmentsJSON(all); err != nil {
			t.Fatal(err)
		}
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		encoder.Encode(all)
		if got.String() != want.String() {
			t.Errorf("%s\nwant\n%s", got.String(), want.String())
		}
	}
}
