package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// toldOf returns a client of a server that gives these answers one after the other, and the forms
// that the client has sent with its POSTs.
func toldOf(t *testing.T, answers ...string) (*client, *[]url.Values) {
	var sent []url.Values
	return fakeClient(t, func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPost {
			return fakeResponse(409, "application/json", `{"code":409,"message":"no","environment":"uat"}`, http.Header{versionHeader: {apiVersion}}), nil
		}
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		answer := answers[min(len(sent), len(answers)-1)]
		sent = append(sent, form)
		code := 0
		fmt.Sscanf(answer, `{"code":%d`, &code)
		return fakeResponse(code, "application/json", answer, http.Header{versionHeader: {apiVersion}}), nil
	}), &sent
}

const (
	toldToWait = `{"code":403,"message":"no free slot","environment":"uat","position":1,"number":%d}`
	toldItIs   = `{"code":410,"message":"it was %[1]s by bob","environment":"uat","ended":{"how":"%[1]s","at":"2026-01-02T03:04:05Z","by":"bob"}}`
)

// A client that begins anew says its first number, and so it does with each further poll: the
// server may have forgotten the request.
func TestAClientThatBeginsAnewSaysItsFirstNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sent := toldOf(t, fmt.Sprintf(toldToWait, 7), fmt.Sprintf(toldToWait, 7), fmt.Sprintf(toldItIs, "abandoned"), fmt.Sprintf(toldToWait, 9),
			fmt.Sprintf(toldItIs, "superseded"))
		o := acquireOptions{environment: "uat", holder: "h", timeout: time.Hour, newest: &newestWins{key: "main"}}
		_, err := c.acquire(t.Context(), o, &eventCounter{})
		if !errors.Is(err, errSuperseded) || errors.Is(err, errEnded) || exitCode(err) != 77 || err.Error() != "it was superseded by bob" {
			t.Errorf("%v, exit code %d", err, exitCode(err))
		}
		var firsts, keys []string
		for _, form := range *sent {
			firsts, keys = append(firsts, form.Get("first")), append(keys, form.Get("supersede"))
		}
		if got := strings.Join(firsts, ","); got != ",7,7,7,7" || strings.Join(keys, "") != strings.Repeat("main", 5) {
			t.Errorf("it has sent the first numbers %s and the keys %s", got, keys)
		}
		if (*sent)[2].Get("id") == (*sent)[3].Get("id") {
			t.Error("it began anew with the same id")
		}
	})
}

// A request without a key says nothing of the kind, and one that was removed does not begin anew.
func TestARemovedRequestDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sent := toldOf(t, fmt.Sprintf(toldToWait, 7), fmt.Sprintf(toldToWait, 7), fmt.Sprintf(toldItIs, "removed"))
		var e eventCounter
		_, err := c.acquire(t.Context(), acquireOptions{environment: "uat", holder: "h", timeout: time.Hour}, &e)
		if !errors.Is(err, errRemoved) || exitCode(err) != 75 || len(*sent) != 3 || e.restartedCount.Load() != 0 {
			t.Errorf("%v, exit code %d, after %d calls", err, exitCode(err), len(*sent))
		}
		for _, form := range *sent {
			if form.Has("first") || form.Has("supersede") {
				t.Errorf("it has sent %v", form)
			}
		}
	})
}
