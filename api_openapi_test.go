package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

// description returns the validator of openapi.yaml.
var description = sync.OnceValue(func() validator.Validator {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		panic(err)
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		panic(err)
	}
	v, problems := validator.NewValidator(document)
	if len(problems) > 0 {
		panic(problems[0])
	}
	return v
})

// described fails the test if the response is not as openapi.yaml describes it. Unknown paths
// and methods are not described there: a 405, and a 404 that is not about an environment, are
// not checked. Neither is a response without body.
func described(t *testing.T, r *http.Request, response *http.Response, body string) {
	t.Helper()
	if code := response.StatusCode; code == http.StatusMethodNotAllowed || code == http.StatusNotFound && !strings.Contains(body, "no such environment") {
		return
	}
	if body == "" { // a response as in 2019, or to HEAD
		return
	}
	answer := *response
	answer.Body = io.NopCloser(bytes.NewReader([]byte(body)))
	if valid, problems := description().ValidateHttpResponse(r, &answer); !valid {
		for _, p := range problems {
			t.Errorf("%s %s, %d %.300s: not as described: %s %s", r.Method, r.URL, response.StatusCode, body, p.Message, p.Reason)
			for _, detail := range p.SchemaValidationErrors {
				t.Errorf("  %s at %s", detail.Reason, detail.FieldPath)
			}
		}
	}
}

func TestTheDescriptionIsValidAndServed(t *testing.T) {
	if valid, problems := description().ValidateDocument(); !valid {
		for _, p := range problems {
			t.Errorf("%s %s", p.Message, p.Reason)
		}
	}
	s := newSite(t, "")
	text, _ := os.ReadFile("openapi.yaml")
	if r := s.call("GET /openapi.yaml").want(t, 200, "openapi: 3.1.0"); r.body != string(text) || r.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("served as %s, %d bytes", r.Header.Get("Content-Type"), len(r.body))
	}
}

// The validator rejects responses that are not as described, so that the checks of all other
// tests can fail.
func TestAnAnswerThatIsNotAsDescribedIsNoticed(t *testing.T) {
	r, _ := http.NewRequest("GET", "http://call-me.example/environments", nil)
	for _, body := range []string{`{}`, `{"environments":[{"environment":"uat"}]}`, `{"environments":[{"environment":"uat","free":1,"slots":[{"slot":"uat","lease":{"id":"secret"}}],"queue":[]}]}`} {
		response := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
		if valid, _ := description().ValidateHttpResponse(r, response); valid {
			t.Errorf("%s is as described", body)
		}
	}
}

func TestEveryRouteIsDescribed(t *testing.T) {
	text, _ := os.ReadFile("openapi.yaml")
	source, err := os.ReadFile("server.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`(?:route|get|look)\("([^"{]+)`).FindAllStringSubmatch(string(source), -1)
	for _, m := range routes {
		if path := m[1]; !strings.Contains(string(text), "\n  "+path+":\n") {
			t.Errorf("%s is not described", path)
		}
	}
	if len(routes) < 9 {
		t.Errorf("only %d routes were found", len(routes))
	}
	if examples := strings.Count(string(text), "Example: "); examples < 10 {
		t.Errorf("only %d calls have an example", examples)
	}
}
