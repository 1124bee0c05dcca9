//go:build schemas

package tests

// The recipes in examples/, the plugins in ci/ and the examples of their page, compared with the JSON
// schemas of their systems. .ci/schemas fetches these, and says in SCHEMAS where they are.

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	yaml "github.com/pb33f/go-yaml"
	"github.com/pb33f/jsonschema/v6"
)

// aRegexp is a regular expression of a schema. Go does not know all that JavaScript has, such as
// (?!...): a text matches such an expression always.
type aRegexp struct{ *regexp.Regexp }

func (r aRegexp) MatchString(s string) bool { return r.Regexp == nil || r.Regexp.MatchString(s) }

func (r aRegexp) String() string { return "" }

// elsewhere is a part of a schema that lies elsewhere: Drone's names some of Kubernetes.
var elsewhere = regexp.MustCompile(`"\$ref": *"(https?:|kubernetes-)[^"]*"`)

func readSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv("SCHEMAS"), name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(elsewhere.ReplaceAll(text, []byte(`"description": "anything"`))))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseRegexpEngine(func(s string) (jsonschema.Regexp, error) {
		compiled, _ := regexp.Compile(s)
		return aRegexp{compiled}, nil
	})
	compiler.AddResource(name, document)
	schema, err := compiler.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// documentsIn returns the documents of a YAML file, or of the text of an example.
func documentsIn(t *testing.T, text string) (all []any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var document any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		all = append(all, document)
	}
}

// wantValid fails the test unless a document is what its schema asks for.
func wantValid(t *testing.T, schema, what string, document any) {
	t.Helper()
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(what, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(what, err)
	}
	if err := readSchema(t, schema).Validate(value); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestSchemasOfTheRecipes(t *testing.T) {
	for file, schema := range map[string]string{
		"action.yml":                       "github-actions",
		"deploy/compose.yaml":              "compose-spec",
		"ci/azure/call-me.yml":             "azure-pipelines",
		"examples/azure-pipelines.yml":     "azure-pipelines",
		"examples/bitbucket-pipelines.yml": "bitbucket-pipelines",
		"examples/buildkite.yml":           "buildkite",
		"examples/circleci.yml":            "circle-ci",
		"examples/github-actions.yml":      "github-workflows",
		"examples/gitlab-ci.yml":           "gitlab-ci",
		"examples/woodpecker.yml":          "woodpecker-ci",
		".github/workflows/ci.yml":         "github-workflows",
		".github/workflows/release.yml":    "github-workflows",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// What Azure puts into the place of the parameter.
		filled := strings.Replace(string(text), "- ${{ parameters.steps }}", "- script: ./test.sh", 1)
		for _, document := range documentsIn(t, filled) {
			wantValid(t, schema, file, document)
		}
	}
}

// The examples of the page, in its order. The orb stands in its example, which a pipeline may do too,
// and Drone's is Woodpecker's with what the page says of it.
func TestSchemasOfTheExamplesOfThePlugins(t *testing.T) {
	page, err := os.ReadFile("docs/ci-plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	orb, err := os.ReadFile("ci/circleci/orb.yml")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	schemas := []string{"buildkite", "circle-ci", "azure-pipelines", "bitbucket-pipelines", "woodpecker-ci"}
	if len(blocks) != len(schemas) {
		t.Fatalf("%d examples", len(blocks))
	}
	for i, schema := range schemas {
		document := documentsIn(t, blocks[i][1])[0].(map[string]any)
		if schema == "circle-ci" {
			inline := documentsIn(t, string(orb))[0].(map[string]any)
			delete(inline, "version")
			delete(inline, "display")
			document["orbs"] = map[string]any{"call-me": inline}
		}
		wantValid(t, schema, "the example of "+schema, document)
	}
	drone := strings.NewReplacer("when: [{status: [success, failure]}]", "when: {status: [success, failure]}").Replace(blocks[len(blocks)-1][1])
	wantValid(t, "drone-ci", "the example of Drone", documentsIn(t, "kind: pipeline\ntype: docker\nname: uat\n"+drone)[0])
}

// A schema that accepts everything shows nothing.
func TestSchemasRefuseAMisspeltKey(t *testing.T) {
	for schema, text := range map[string]string{
		"azure-pipelines":     "steps: [{bsh: ls}]",
		"bitbucket-pipelines": "pipelines: {default: [{stepp: {script: [ls]}}]}",
		"buildkite":           "steps: [{comand: ls}]",
		"circle-ci":           "version: 2.1\njobs: {a: {docker: [{image: b}], steps: [{run: {comand: ls}}]}}",
		"drone-ci":            "kind: pipeline\ntype: docker\nname: a\nsteps: [{name: b, image: c, wehn: {}}]",
		"woodpecker-ci":       "steps: [{name: a, image: b, comands: [ls]}]",
	} {
		value := documentsIn(t, text)[0]
		encoded, _ := json.Marshal(value)
		value, _ = jsonschema.UnmarshalJSON(bytes.NewReader(encoded))
		if readSchema(t, schema).Validate(value) == nil {
			t.Errorf("%s accepts %s", schema, text)
		}
	}
}
