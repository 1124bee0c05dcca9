//go:build unix

package tests

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A proxy is a real nginx, haproxy or Caddy in front of a server, with its default settings.
type proxy struct {
	t    *testing.T
	name string
	args []string
	host string
	base string // the URL of the proxy
	http *http.Client
	cmd  *exec.Cmd
}

const nginxConfig = `daemon off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
  access_log %[1]s/access.log;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s;
    location / {
      proxy_pass http://%[3]s;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`

// The time-outs are those of Debian's own haproxy.cfg.
const haproxyConfig = `# %[1]s
defaults
  mode http
  option forwardfor
  timeout connect 5000
  timeout client 50000
  timeout server 50000
frontend call-me
  bind %[2]s
  default_backend server
backend server
  server one %[3]s
`

func newProxy(t *testing.T, name, to string) *proxy {
	program, err := exec.LookPath(name)
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			missing(t, name)
		}
	}
	dir := t.TempDir()
	config, text := filepath.Join(dir, "config"), nginxConfig
	p := &proxy{t: t, name: name, args: []string{program, "-p", dir, "-e", "stderr", "-c", config}, host: fmt.Sprint("127.0.0.1:", freePort()), http: http.DefaultClient}
	p.base = "http://" + p.host
	if name == "haproxy" {
		p.args, text = []string{program, "-db", "-f", config}, haproxyConfig
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, text, dir, p.host, to), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *proxy) start() {
	p.t.Helper()
	var out lockedBuffer
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = &out, &out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // kill ends the workers too
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	if err := waitForServer(p.http, p.base); err != nil {
		p.t.Fatalf("%s: %v\n%s", p.name, err, &out)
	}
}

// kill ends the proxy with its workers, which closes all connections through it.
func (p *proxy) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
}

func TestThroughAProxyTheWaitIsKept(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nginx", "haproxy"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, "CALL_ME_TRUSTED_PROXIES=127.0.0.1")
			p := newProxy(t, name, d.host)
			through := func(holder string, args ...string) (*exec.Cmd, *lockedBuffer) {
				cmd, out := d.client(holder, args...)
				cmd.Env = append(cmd.Env, "HOST="+p.host)
				return cmd, out
			}
			inLine := func(names ...string) func() bool {
				return func() bool {
					_, body := d.call("GET", "/environments?environment=uat")
					_, line, _ := strings.Cut(body, `"queue":`)
					for _, name := range names {
						found := false
						if _, line, found = strings.Cut(line, `"holder":"`+name+`"`); !found {
							return false
						}
					}
					return strings.Count(body, `"connected":true`) == len(names)
				}
			}
			d.call("POST", "/maybe?environment=uat&id=12345678&holder=first")
			second, out2 := through("second", "request", "uat")
			if err := second.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the second is in the queue", inLine("second"))
			third, out3 := through("third", "request", "uat")
			if err := third.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the third is in the queue", inLine("second", "third"))

			// The waiters keep their positions when their connections end during a poll.
			p.kill()
			p.start()
			eventually(t, "both are back in their places", inLine("second", "third"))

			// The server notices a client that disconnects from the proxy. haproxy reports
			// it only with "option abortonclose"; without it the waiter ends with its poll.
			gone, _ := through("gone", "request", "uat")
			if err := gone.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "one more is in the queue", inLine("second", "third", "gone"))
			gone.Process.Kill()
			gone.Wait()
			if name == "nginx" {
				eventually(t, "the proxy tells that it hung up", inLine("second", "third"))
			}

			// The proxy does not buffer events.
			watch, seen := through("watch", "status", "--watch")
			if err := watch.Start(); err != nil {
				t.Fatal(err)
			}
			defer watch.Process.Kill()
			eventually(t, "it shows the holder", func() bool { return strings.Contains(seen.String(), "first") })
			start := time.Now()
			if force, out := through("boss", "release", "uat", "--force"); force.Run() != nil {
				t.Error(out)
			}
			if err := second.Wait(); err != nil {
				t.Errorf("%v\n%s", err, out2)
			}
			t.Logf("handed over after %v", time.Since(start))
			eventually(t, "who watches sees it", func() bool { return strings.Contains(seen.String(), "second") })
			if release, out := through("second", "release", "uat"); release.Run() != nil {
				t.Error(out)
			}
			if err := third.Wait(); err != nil {
				t.Errorf("%v\n%s", err, out3)
			}
			if _, body := d.call("GET", "/history"); !strings.Contains(body, `"from":"127.0.0.1"`) {
				t.Errorf("the address behind the proxy: %s", body)
			}
			if code, _ := d.call("GET", "/backup"); code != 200 {
				t.Error("no backup")
			}
			copied := filepath.Join(t.TempDir(), "copy.db")
			if backup, out := through("operator", "backup", copied); backup.Run() != nil {
				t.Error(out)
			}
			run, out := through("runner", "run", "other", "--", "true")
			if run.Run() != nil {
				t.Error(out)
			}
		})
	}
}
