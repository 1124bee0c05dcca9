//go:build unix

package tests

// The configurations of deploy/ for proxies, with TLS, in front of a real server.

import (
	"bufio"
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// deployed returns a proxy with a configuration of deploy/, in which only the names are
// changed.
func deployed(t *testing.T, name string, d *daemon, a *authority) *proxy {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			missing(t, name)
		}
	}
	dir := t.TempDir()
	a.issue(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	p := &proxy{t: t, name: name, host: fmt.Sprint("127.0.0.1:", freePort()), http: &http.Client{Transport: &http.Transport{TLSClientConfig: a.trust()}}}
	p.base = "https://" + p.host
	config := filepath.Join(dir, "config")
	var file, around string
	var names *strings.Replacer
	switch name {
	case "nginx":
		file, around = "deploy/nginx.conf", "daemon off;\npid %[1]s/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/body;\n"+
			"proxy_temp_path %[1]s/proxy;\nfastcgi_temp_path %[1]s/fastcgi;\nuwsgi_temp_path %[1]s/uwsgi;\nscgi_temp_path %[1]s/scgi;\n%[2]s}\n"
		names = strings.NewReplacer("127.0.0.1:8000", d.host, "listen 443", "listen "+p.host, "/etc/ssl/call-me.pem", dir+"/cert.pem", "/etc/ssl/call-me.key", dir+"/key.pem")
		p.args = []string{program, "-p", dir, "-e", "stderr", "-c", config}
	case "caddy":
		file, around = "deploy/Caddyfile", "{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system %[1]s\n}\n%[2]s"
		names = strings.NewReplacer("127.0.0.1:8000", d.host, "call-me.example {", fmt.Sprintf("%s {\n\ttls %s/cert.pem %[2]s/key.pem", p.base, dir))
		p.args = []string{"env", "HOME=" + dir, program, "run", "--adapter", "caddyfile", "--config", config}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, around, dir, names.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(func() { p.kill() })
	return p
}

func TestBehindTheProxiesOfDeployTheQueueWorksAsWithoutOne(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nginx", "caddy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, a := newDaemon(t), newAuthority(t)
			p := deployed(t, name, d, a)
			d.env = append(d.env, "HOST="+p.base, "CALL_ME_CA_FILE="+a.file)

			events := d.follow(p)
			first, out := d.client("first", "request", "uat")
			if err := first.Run(); err != nil {
				t.Fatal(out)
			}
			if text := <-events; !strings.Contains(text, "first") {
				t.Errorf("the first event is %s", text)
			}
			inLine := func(holder string) (*exec.Cmd, *lockedBuffer) {
				cmd, out := d.client(holder, "request", "uat")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				eventually(t, holder+" is in the queue", func() bool { return strings.Contains(out.String(), "in the queue") })
				return cmd, out
			}
			next, said := inLine("next")
			killed, _ := inLine("killed")
			killed.Process.Kill()
			killed.Wait()
			eventually(t, "the server sees that the killed client is gone", func() bool {
				_, body := d.call("GET", "/environments?environment=uat")
				return !strings.Contains(body, `"killed"`) || strings.Count(body, `"connected":true`) == 1
			})

			p.kill() // a reload or a crash: a waiting client gets no error
			p.start()
			eventually(t, "next is back", func() bool {
				_, body := d.call("GET", "/environments?environment=uat")
				return strings.Contains(body, `"connected":true`)
			})
			release, out := d.client("first", "release", "uat")
			if err := release.Run(); err != nil {
				t.Fatal(out)
			}
			if err := next.Wait(); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// follow returns a channel with the events of /events that come through the proxy.
func (d *daemon) follow(p *proxy) <-chan string {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", p.base+"/events", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("X-API-KEY", testKey)
	response, err := p.http.Do(r)
	if err != nil || response.StatusCode != 200 {
		d.t.Fatal(err, response)
	}
	events := make(chan string, 100)
	go func() {
		defer response.Body.Close()
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if data, isData := strings.CutPrefix(lines.Text(), "data: "); isData && strings.Contains(data, "holder") {
				events <- data
			}
		}
	}()
	return events
}

// A lost server is started again: by systemd after a second and as often as needed, by Compose,
// and by Kubernetes, which moves the pod 30 s after its node was lost, and never has two.
func TestTheConfigurationsOfDeployStartAServerAgain(t *testing.T) {
	t.Parallel()
	for file, lines := range map[string][]string{
		"deploy/call-me.service": {"Restart=always", "RestartSec=1", "StartLimitIntervalSec=0"},
		"deploy/compose.yaml":    {"restart: unless-stopped"},
		"deploy/call-me.plist":   {"<key>RunAtLoad</key><true/>", "<key>KeepAlive</key><true/>", "<key>ThrottleInterval</key><integer>1</integer>"},
		"deploy/call-me.cmd":     {"goto again\r"},
		"deploy/kubernetes.yaml": {"kind: StatefulSet", "replicas: 1 #", "accessModes: [ReadWriteOnce]",
			"- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}",
			"- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".plist") {
			if err := xml.Unmarshal(text, new(any)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		for _, line := range lines {
			if !regexp.MustCompile(`(?m)^ *` + regexp.QuoteMeta(line)).Match(text) {
				t.Errorf("%s has no %s", file, line)
			}
		}
	}
}
