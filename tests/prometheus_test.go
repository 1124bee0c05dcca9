//go:build unix

package tests

// The rules, the dashboard and the scrape configuration of examples/prometheus, with a real
// Prometheus and its promtool.

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func promtool(t *testing.T, args ...string) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		missing(t, "promtool")
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestTheAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	promtool(t, "test", "rules", "examples/prometheus/alerts_test.yml")
	rules, _ := os.ReadFile("examples/prometheus/alerts.yml")
	tested, _ := os.ReadFile("examples/prometheus/alerts_test.yml")
	documented, _ := os.ReadFile("docs/operations.md")
	names := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	for _, name := range names {
		if !strings.Contains(string(tested), "alertname: "+name[1]+"\n        exp_alerts:") {
			t.Errorf("alerts_test.yml lets no %s fire", name[1])
		}
		if !strings.Contains(string(documented), "| `"+name[1]+"` |") {
			t.Errorf("operations.md does not say what to do at %s", name[1])
		}
	}
	if len(names) < 9 {
		t.Errorf("there are %d alerts", len(names))
	}
}

// A prometheus is a Prometheus with the configuration of examples/prometheus, which scrapes a
// daemon each second.
type prometheus struct {
	t    *testing.T
	base string
}

func newPrometheus(t *testing.T, d *daemon) *prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		missing(t, "prometheus")
	}
	dir := t.TempDir()
	scrape, err := os.ReadFile("examples/prometheus/scrape.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("examples/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.NewReplacer("call-me.example:8000", d.host, "/etc/prometheus/call-me.key", filepath.Join(dir, "key"))
	config := "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [" + rules + "]\n" + names.Replace(string(scrape))
	for name, text := range map[string]string{"key": d.key + "\n", "prometheus.yml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
	address := fmt.Sprint("127.0.0.1:", freePort())
	cmd := exec.Command(program, "--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus said:\n%s", out)
		}
	})
	p := &prometheus{t, "http://" + address}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(p.base + "/-/ready")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return p
			}
		}
		if time.Now().After(end) {
			t.Fatal("Prometheus is not ready")
		}
	}
}

// get decodes the data of an answer. It fails the test if the answer is an error.
func (p *prometheus) get(path string, into any) {
	p.t.Helper()
	response, err := http.Get(p.base + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	answer := struct {
		Status string
		Data   any
	}{Data: into}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("%s: %v\n%s", path, err, body)
	}
}

// query returns how many series an expression has, and the value of the first.
func (p *prometheus) query(expression string) (series int, value string) {
	p.t.Helper()
	var got struct{ Result []struct{ Value [2]any } }
	p.get("/api/v1/query?query="+url.QueryEscape(expression), &got)
	if len(got.Result) > 0 {
		value = fmt.Sprint(got.Result[0].Value[1])
	}
	return len(got.Result), value
}

// Prometheus scrapes a server, evaluates every rule, and finds what each panel of the dashboard
// asks for.
func TestARealPrometheusReadsTheServer(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	d.want(201, "POST", "/maybe?environment=uat&id=12345678&ttl=1h")
	d.want(200, "PUT", "/pause?environment=perf")
	p := newPrometheus(t, d)
	eventually(t, "it has scraped the server twice", func() bool {
		_, value := p.query(`sum_over_time(up{job="call-me"}[1m])`)
		return value != "" && value != "0" && value != "1"
	})
	for expression, want := range map[string]string{`callme_slots{environment="uat",state="held"}`: "1", `callme_slots{environment="perf",state="paused"}`: "1", "callme_healthy": "1"} {
		if _, got := p.query(expression); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
	eventually(t, "every rule is evaluated", func() bool {
		var rules struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		p.get("/api/v1/rules", &rules)
		evaluated := 0
		for _, rule := range rules.Groups[0].Rules {
			if rule.LastError != "" {
				t.Fatalf("%s: %s", rule.Name, rule.LastError)
			}
			if rule.Health == "ok" {
				evaluated++
			}
		}
		return evaluated >= 9 && evaluated == len(rules.Groups[0].Rules)
	})
	text, err := os.ReadFile("examples/prometheus/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil || len(dashboard.Panels) < 10 {
		t.Fatalf("%d panels: %v", len(dashboard.Panels), err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			if series, _ := p.query(strings.ReplaceAll(target.Expr, "$environment", ".*")); series == 0 {
				t.Errorf("the panel %q shows nothing: %s", panel.Title, target.Expr)
			}
		}
	}
}
