package main

// The wings of this package and the arrows between them. A file's wing is the part
// of its name before the first underscore. docs/design.md draws the arrows; this test
// holds them: a wing names nothing of a wing to which it has no arrow. Within a wing
// anything may name anything.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// arrows has every wing, and the wings that it may name.
var arrows = map[string][]string{
	"main":     {"cli", "run", "terminal", "errors"},
	"cli":      {"run", "client", "notes", "server", "store", "terminal", "ci", "config", "api", "limits", "text", "errors"},
	"run":      {"client", "terminal", "ci", "api", "config", "text", "errors"},
	"terminal": {"client", "ci", "api", "text", "errors"},
	"client":   {"config", "api", "limits", "text", "errors"},
	"server":   {"keeper", "store", "etcd", "record", "lock", "config", "api", "limits", "text", "errors"},
	"keeper":   {"record", "lock", "errors"},
	"store":    {"record", "errors"},
	"etcd":     {"record", "errors"},
	"record":   {"lock", "errors"},
	"lock":     {"errors"},
	"notes":    {"limits"},
	"config":   {"limits", "text", "errors"},
	"ci":       {"limits", "text"},
	"api":      {"text"},
	"limits":   {"text", "errors"},
	"text":     {},
	"errors":   {},
}

// onlyImporter has the libraries that one wing alone imports.
var onlyImporter = map[string]string{
	"github.com/urfave/cli/v2":             "cli",
	"github.com/kelseyhightower/envconfig": "config",
	"go.etcd.io/bbolt":                     "store",
	"github.com/coreos/go-oidc/v3":         "server",
	"go.etcd.io/etcd":                      "etcd",
}

func wingOf(file string) string {
	wing, _, _ := strings.Cut(strings.TrimSuffix(file, ".go"), "_")
	return wing
}

// A house is the type-checked product.
type house struct {
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
	pkg   *types.Package
}

func loadHouse(t *testing.T) *house {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports := map[string]string{}
	var names []string
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Export string
			GoFiles            []string
		}
		if err := packages.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath], names = p.Export, p.GoFiles // the package itself is the last one
	}
	h := &house{fset: token.NewFileSet(), info: &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}}
	for _, name := range names {
		f, err := parser.ParseFile(h.fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		h.files = append(h.files, f)
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	config := types.Config{Importer: importer.ForCompiler(h.fset, "gc", lookup)}
	h.pkg, err = config.Check("main", h.fset, h.files, h.info)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) fileOf(at token.Pos) string { return h.fset.Position(at).Filename }

// isShared reports whether other files can name an object: it is declared at package
// level, or is a method or a field.
func (h *house) isShared(o types.Object) bool {
	if o.Pkg() != h.pkg {
		return false
	}
	if o.Parent() == h.pkg.Scope() {
		return true
	}
	v, isVar := o.(*types.Var)
	_, isFunc := o.(*types.Func)
	return isFunc || isVar && v.IsField()
}

func TestAWingNamesOnlyWhatItsArrowsAllow(t *testing.T) {
	h := loadHouse(t)
	wrong := map[string]bool{}
	for id, o := range h.info.Uses {
		if !h.isShared(o) {
			continue
		}
		from, to := wingOf(h.fileOf(id.Pos())), wingOf(h.fileOf(o.Pos()))
		if from != to && !slices.Contains(arrows[from], to) {
			wrong[fmt.Sprintf("%s names %s of %s", h.fileOf(id.Pos()), id.Name, h.fileOf(o.Pos()))] = true
		}
	}
	for _, line := range slices.Sorted(maps.Keys(wrong)) {
		t.Error(line)
	}
}

func TestAMethodLivesInTheWingOfItsType(t *testing.T) {
	h := loadHouse(t)
	for _, f := range h.files {
		for _, d := range f.Decls {
			method, isFunc := d.(*ast.FuncDecl)
			if !isFunc || method.Recv == nil {
				continue
			}
			receiver := h.info.Defs[method.Name].(*types.Func).Signature().Recv().Type()
			if pointer, isPointer := receiver.(*types.Pointer); isPointer {
				receiver = pointer.Elem()
			}
			at := h.fileOf(receiver.(*types.Named).Obj().Pos())
			if here := h.fileOf(method.Pos()); wingOf(here) != wingOf(at) {
				t.Errorf("%s has a method of %s: %s", here, at, method.Name.Name)
			}
		}
	}
}

func TestALibraryHasOneImporter(t *testing.T) {
	h := loadHouse(t)
	for _, f := range h.files {
		for _, spec := range f.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			for library, wing := range onlyImporter {
				if (path == library || strings.HasPrefix(path, library+"/")) && wingOf(h.fileOf(f.Pos())) != wing {
					t.Errorf("%s imports %s", h.fileOf(f.Pos()), path)
				}
			}
		}
	}
}

// The arrows themselves have no circle.
func TestTheArrowsPointOneWay(t *testing.T) {
	done := map[string]bool{}
	var visit func(wing string, path []string)
	visit = func(wing string, path []string) {
		if slices.Contains(path, wing) {
			t.Errorf("a circle: %v", append(path, wing))
			return
		}
		if done[wing] {
			return
		}
		for _, to := range arrows[wing] {
			if arrows[to] == nil {
				t.Errorf("%s has an arrow to %s, which has no list", wing, to)
			}
			visit(to, append(path, wing))
		}
		done[wing] = true
	}
	for wing := range arrows {
		visit(wing, nil)
	}
}

// What fits a head: no file has more than 400 lines and no function more than 60. Of
// lines with more than 110 columns there are a few, such as tags of fields.
func TestFilesFunctionsAndLinesAreShort(t *testing.T) {
	const maxFile, maxFunction, maxColumns, maxLongLines = 400, 60, 110, 20
	h := loadHouse(t)
	var long []string
	for _, f := range h.files {
		name := h.fileOf(f.Pos())
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(source), "\n"), "\n")
		if len(lines) > maxFile {
			t.Errorf("%s has %d lines", name, len(lines))
		}
		for i, line := range lines {
			if columns := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); columns > maxColumns {
				long = append(long, fmt.Sprintf("%s:%d: %d columns", name, i+1, columns))
			}
		}
		for _, d := range f.Decls {
			if function, isFunc := d.(*ast.FuncDecl); isFunc {
				if n := h.fset.Position(function.End()).Line - h.fset.Position(function.Pos()).Line + 1; n > maxFunction {
					t.Errorf("%s: %s has %d lines", name, function.Name.Name, n)
				}
			}
		}
	}
	if len(long) > maxLongLines {
		t.Errorf("%d lines are too long:\n%s", len(long), strings.Join(long, "\n"))
	}
}
