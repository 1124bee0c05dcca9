package main

// The mutation test of the rules. It changes the conditions and statements of the
// files of the rules one at a time: it inverts a condition, makes it always true or false, moves its edge, leaves a statement out, or sets a field of a literal to
// zero. For each mutant it runs the tests of the rules, and lists the mutants with which
// they pass: the survivors. Every survivor must be explained in testdata/survivors.txt.
//
// All mutants are built into one binary, and the environment variable MUTANT selects the one
// that is alive. So a run takes a fraction of a second. The product has none of this: the
// changed files are an overlay of the build.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// ruleErrors is the only file that the rules need besides their own.
const ruleErrors = "errors.go"

// ruleFiles returns the files of the rules, which are changed, and those with their tests.
func ruleFiles(t *testing.T) (mutated, tests []string) {
	for _, pattern := range []string{"lock*.go", "trust_model_*_test.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			switch {
			case name == "trust_model_keeper_test.go": // of the keeper
			case strings.HasSuffix(name, "_test.go"):
				tests = append(tests, name)
			default:
				mutated = append(mutated, name)
			}
		}
	}
	return mutated, tests
}

// mutantRuntime is the source of the functions that the changed files call.
const mutantRuntime = `package main

import (
	"os"
	"strconv"
)

var alive, _ = strconv.Atoi(os.Getenv("MUTANT"))

func main() {}

func mutateNot(n int, c bool) bool { return c != (n == alive) }

func mutateTo(n int, c, to bool) bool {
	if n == alive {
		return to
	}
	return c
}

func mutateKeep(n int) bool { return n != alive }

func mutateValue[T any](n int, v T) T {
	var zero T
	if n == alive {
		return zero
	}
	return v
}
`

// A mutant is one change. Its name is unique and does not depend on line numbers.
type mutant struct {
	number int
	name   string
}

// A mutator collects the mutants of one file, as texts to insert.
type mutator struct {
	file     *token.File
	source   []byte
	function string
	first    int // the number of the last mutant
	mutants  []mutant
	inserts  []insert
	seen     map[string]int
}

type insert struct {
	at    int
	depth int // of two at one offset, the smaller one is first
	text  string
}

// text returns the source of the node on one line.
func (m *mutator) text(n ast.Node) string {
	return strings.Join(strings.Fields(string(m.source[m.file.Offset(n.Pos()):m.file.Offset(n.End())])), " ")
}

// add adds a mutant of the node, and returns its number.
func (m *mutator) add(what string, n ast.Node) int {
	name := fmt.Sprintf("%s: %s: %s: %s", filepath.Base(m.file.Name()), m.function, what, m.text(n))
	if m.seen[name]++; m.seen[name] > 1 {
		name = fmt.Sprintf("%s (%d)", name, m.seen[name])
	}
	m.first++
	m.mutants = append(m.mutants, mutant{m.first, name})
	return m.first
}

// wrap inserts a text before the node and one after it.
func (m *mutator) wrap(n ast.Node, before, after string) {
	depth := len(m.inserts)
	m.inserts = append(m.inserts, insert{m.file.Offset(n.Pos()), depth, before}, insert{m.file.Offset(n.End()), -depth, after})
}

// condition makes three mutants of a condition: its opposite, always true, always false.
func (m *mutator) condition(n ast.Expr) {
	not, yes, no := m.add("not", n), m.add("always", n), m.add("never", n)
	m.wrap(n, fmt.Sprintf("mutateTo(%d, mutateTo(%d, mutateNot(%d, ", no, yes, not), "), true), false)")
}

// edge makes a mutant of a comparison of sizes or times: the opposite result if both are equal.
func (m *mutator) edge(n ast.Expr) {
	switch x := n.(type) {
	case *ast.BinaryExpr:
		other := map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}[x.Op]
		if other != "" {
			m.wrap(n, "func() bool { if mutateKeep("+fmt.Sprint(m.add("edge", n))+") { return ", "}; return "+m.text(x.X)+other+m.text(x.Y)+" }()")
		}
	case *ast.CallExpr:
		if f, ok := x.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Before" || f.Sel.Name == "After") {
			m.wrap(n, "func() bool { if mutateKeep("+fmt.Sprint(m.add("edge", n))+") { return ", "}; return "+m.text(n)+" || "+m.text(f.X)+".Equal("+m.text(x.Args[0])+") }()")
		}
	}
}

// visit makes the mutants of one node. It is a function for ast.Inspect.
func (m *mutator) visit(n ast.Node) bool {
	switch x := n.(type) {
	case *ast.FuncDecl:
		m.function = x.Name.Name
	case *ast.IfStmt:
		m.plain(x.Cond)
	case *ast.ForStmt:
		m.plain(x.Cond)
	case *ast.SwitchStmt:
		if x.Tag == nil {
			for _, c := range x.Body.List {
				for _, e := range c.(*ast.CaseClause).List {
					m.plain(e)
				}
			}
		}
	case *ast.BinaryExpr:
		switch x.Op {
		case token.LAND, token.LOR:
			m.condition(x)
			m.plain(x.X)
			m.plain(x.Y)
		case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
			m.condition(x)
			m.edge(x)
		}
	case *ast.CallExpr:
		m.edge(x)
	case *ast.ExprStmt:
		if !strings.HasPrefix(m.text(x), "panic(") {
			m.statement(n)
		}
	case *ast.IncDecStmt:
		m.statement(n)
	case *ast.AssignStmt:
		if x.Tok != token.DEFINE {
			m.statement(n)
		}
	case *ast.KeyValueExpr:
		if name := m.text(x.Value); name != "nil" {
			m.wrap(x.Value, fmt.Sprintf("mutateValue(%d, ", m.add("empty", x)), ")")
		}
	}
	return true
}

// plain makes the mutants of a condition that is a call or a variable, which visit does not
// recognize as a condition.
func (m *mutator) plain(n ast.Expr) {
	switch x := n.(type) {
	case nil:
	case *ast.BinaryExpr: // visit makes its mutants
	case *ast.ParenExpr:
		m.plain(x.X)
	default:
		m.condition(n)
	}
}

// statement makes a mutant without the statement. It makes none if the statement is in the
// head of an if, for or switch, where a block is not allowed.
func (m *mutator) statement(n ast.Node) {
	before := string(m.source[:m.file.Offset(n.Pos())])
	if strings.TrimSpace(before[strings.LastIndex(before, "\n")+1:]) == "" {
		m.wrap(n, fmt.Sprintf("if mutateKeep(%d) { ", m.add("without", n)), " }")
	}
}

// mutate returns the source of the file with all its mutants, and their list. first is the
// number of mutants that exist already.
func mutate(path string, first int) (source []byte, mutants []mutant, err error) {
	source, err = os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, path, source, 0)
	if err != nil {
		return nil, nil, err
	}
	m := &mutator{file: set.File(tree.Pos()), source: source, first: first, seen: map[string]int{}}
	for _, d := range tree.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			ast.Inspect(f, m.visit)
		}
	}
	sort.SliceStable(m.inserts, func(i, j int) bool {
		a, b := m.inserts[i], m.inserts[j]
		return a.at < b.at || a.at == b.at && a.depth < b.depth
	})
	var out bytes.Buffer
	done := 0
	for _, i := range m.inserts {
		out.Write(source[done:i.at])
		out.WriteString(i.text)
		done = i.at
	}
	out.Write(source[done:])
	return out.Bytes(), m.mutants, nil
}

// buildMutants builds a test binary of the rules with all mutants. It returns its path and the
// mutants.
func buildMutants(t *testing.T) (binary string, all []mutant) {
	folder := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	add := func(name string, source []byte) {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, source, 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, "mutated", name)] = file
	}
	mutated, tests := ruleFiles(t)
	for _, name := range mutated {
		source, mutants, err := mutate(name, len(all))
		if err != nil {
			t.Fatal(err)
		}
		add(name, source)
		all = append(all, mutants...)
	}
	for _, name := range append([]string{ruleErrors}, tests...) {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		add(name, source)
	}
	add("mutant.go", []byte(mutantRuntime))
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(folder, "mutants.test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", list, "-o", binary, "./mutated").CombinedOutput(); err != nil {
		t.Fatalf("building the mutants: %v\n%s", err, out)
	}
	return binary, all
}

// survives reports whether the tests of the rules pass with the mutant, and returns their
// output. It runs the short tests first, then all. The seed is constant, so that a repeated
// run has the same result.
func survives(binary string, number int) (bool, string) {
	lives, out := passes(binary, number, "-test.short", "-rapid.checks=1000")
	if lives {
		lives, out = passes(binary, number, "-rapid.checks=1000")
	}
	return lives, out
}

func passes(binary string, number int, flags ...string) (bool, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(flags, "-test.failfast", "-test.timeout=20s",
		"-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=1ms")...)
	cmd.Dir = filepath.Dir(binary)
	cmd.Env = append(os.Environ(), fmt.Sprint("MUTANT=", number))
	out, err := cmd.CombinedOutput()
	return err == nil, string(out)
}

// explained returns the known survivors: the reason why no test can or should notice it, by the
// name of the mutant. In the file, a tab is between the two.
func explained(t *testing.T) map[string]string {
	text, err := os.ReadFile("testdata/survivors.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, why, found := strings.Cut(strings.TrimSpace(line), "\t"); found {
			known[name] = strings.TrimSpace(why)
		} else if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("testdata/survivors.txt: %q has no reason", line)
		}
	}
	return known
}

// Every mutant of the rules fails a test or is an explained survivor. The short form runs the
// mutants for which there is time, others with each seed, and the long form runs all.
func TestTrustMutantsOfTheRulesAreNoticed(t *testing.T) {
	started := time.Now()
	binary, all := buildMutants(t)
	if ok, out := survives(binary, 0); !ok {
		t.Fatalf("the tests of the rules fail without a mutant:\n%s", out)
	}
	known := explained(t)
	names := map[string]bool{}
	for _, m := range all {
		names[m.name] = true
	}
	for name := range known {
		if !names[name] {
			t.Errorf("testdata/survivors.txt explains a mutant that there is not: %s", name)
		}
	}
	chance := rand.New(rand.NewPCG(*seed, 0))
	chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	work := make(chan mutant)
	var mu sync.Mutex
	noticed, surviving, unexplained := 0, 0, []string{}
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for m := range work {
				lives, _ := survives(binary, m.number)
				mu.Lock()
				switch {
				case !lives && known[m.name] != "":
					t.Errorf("is noticed, and need not be explained: %s", m.name)
				case !lives:
					noticed++
				case known[m.name] != "":
					surviving++
				default:
					unexplained = append(unexplained, m.name)
				}
				mu.Unlock()
			}
		})
	}
	built := time.Now()
	for i, m := range all {
		if long == 0 && i >= 10 && time.Since(built) > 4*time.Second {
			break
		}
		work <- m
	}
	close(work)
	workers.Wait()
	slices.Sort(unexplained)
	for _, name := range unexplained {
		t.Errorf("no test fails with the mutant %s", name)
	}
	record(t, "mutants", started, map[string]int{"mutants": noticed + surviving + len(unexplained), "noticed": noticed,
		"explained survivors": surviving, "unexplained survivors": len(unexplained)})
}
