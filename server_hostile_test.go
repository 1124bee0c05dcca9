package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile sends the text unchanged, and returns the responses: "status body" for each, and
// "cut off" with the error if an expected response cannot be read. It closes its direction
// of the connection after the expected number of responses; with end, as soon as the text is
// sent. It reads further responses until the server closes the connection.
func (s *site) hostile(t *testing.T, text string, end bool, expected int) []string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(c, text)
	}()
	endIt := func() {
		<-sent
		c.(*net.TCPConn).CloseWrite()
	}
	if end {
		endIt()
	}
	var answers []string
	for b := bufio.NewReader(c); ; {
		if len(answers) == expected && !end {
			end = true
			endIt()
		}
		response, err := http.ReadResponse(b, &http.Request{Method: methodOf(text)})
		switch {
		case err != nil && len(answers) < expected && !errors.Is(err, io.ErrUnexpectedEOF):
			return append(answers, "cut off: "+err.Error())
		case err != nil:
			return answers
		}
		body, _ := io.ReadAll(response.Body)
		answers = append(answers, strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", string(body))))
		tellsInJSON(t, response, string(body))
		if strings.Contains(string(body), testKey) {
			t.Errorf("the key is in the answer: %s", body)
		}
	}
}

func methodOf(text string) string {
	if strings.HasPrefix(text, "HEAD ") {
		return "HEAD"
	}
	return "GET"
}

// tellsInJSON fails the test if an error response with a body does not have the form of the
// API. A response of net/http itself is allowed: it is text, and the last response on its
// connection.
func tellsInJSON(t *testing.T, r *http.Response, body string) {
	var refused errorJSON
	if r.StatusCode < 400 || body == "" {
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") && r.Close {
		return
	}
	if err := json.Unmarshal([]byte(body), &refused); err != nil || refused.Code != r.StatusCode || refused.Message == "" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: %s is not the form of an error", r.Status, body)
	}
}

const (
	malformed = "400 400 Bad Request" // net/http's own response to bytes that are not HTTP
	noKey     = `401 {"code":401,"message":"missing or wrong API key"}`
	notThere  = `404 {"code":404,"message":"not found"}`
	notDone   = `405 {"code":405,"message":"method not allowed"}`
	tooBig    = `413 {"code":413,"message":"too large: a body has 65536 bytes at most"}`
	longURL   = `414 {"code":414,"message":"the URL is too long"}`
	longHead  = "431 431 Request Header Fields Too Large"
)

func bad(detail string) string {
	return fmt.Sprintf(`400 {"code":400,"message":"malformed request: %s"}`, detail)
}

func unfit(detail string) string {
	return fmt.Sprintf(`422 {"code":422,"message":"bad parameter: %s"}`, detail)
}

// expandHostile expands the abbreviations of hostileTable. ~ is the end of a line. § is the
// header Host, and ¤ the header with the key, each with its line end. ¶ is removed: with it
// the test closes its direction of the connection after the text, without it the connection
// stays open until all expected responses are read. No request of the table may take the
// slot of uat.
var expandHostile = strings.NewReplacer("~", "\r\n", "§", "Host: call-me.example\r\n", "¤", "X-API-KEY: "+testKey+"\r\n", "¶", "")

var hostileTable = []struct{ name, send, want string }{
	// Request lines
	{"nothing", "¶", ""},
	{"a line end", "~¶", malformed},
	{"noise", "\x00\x01\x02\x03~~", malformed},
	{"words", "hello~~", malformed},
	{"no version", "GET /healthz~~", malformed},
	{"a version of its own", "GET /healthz HTTP/x~~", malformed},
	{"HTTP/0.9", "GET /healthz HTTP/0.9~§¤~", "505 505 HTTP Version Not Supported: unsupported protocol version"},
	{"HTTP/2.0", "GET /healthz HTTP/2.0~§¤~", "505 505 HTTP Version Not Supported: unsupported protocol version"},
	{"HTTP/1.2", "GET /healthz HTTP/1.2~§¤~", `200 {"status":"ok"}`},
	{"HTTP/1.0 without Host", "GET /maybe?environment=uat HTTP/1.0~¤~", "200"},
	{"HTTP/1.0 with a body", "POST /maybe HTTP/1.0~¤Content-Type: application/x-www-form-urlencoded~Content-Length: 15~~environment=%41", "201"},
	{"two spaces", "GET  /healthz HTTP/1.1~§¤~", malformed},
	{"a tab for a space", "GET\t/healthz HTTP/1.1~§¤~", malformed},
	{"a space in the path", "GET /maybe?environment=a b HTTP/1.1~§¤~", malformed},
	{"lower case", "get /maybe?environment=uat HTTP/1.1~§¤~", notDone},
	{"a NUL in the path", "GET /maybe\x00 HTTP/1.1~§¤~", malformed},
	{"a NUL in the query", "GET /maybe?environment=a\x00 HTTP/1.1~§¤~", malformed},
	{"an ESC in the path", "GET /\x1b[31m HTTP/1.1~§¤~", malformed},
	{"a byte above ASCII in the path", "GET /\xff HTTP/1.1~§¤~", notThere},
	{"a line that never ends", "GET /" + strings.Repeat("x", 20<<10) + " HTTP/1.1~§¤~", longHead},
	{"a URL of 10 kB", "GET /maybe?environment=" + strings.Repeat("x", 10<<10) + " HTTP/1.1~§¤~", longURL},
	{"a name of ten megabytes", "GET /maybe?environment=" + strings.Repeat("x", 10<<20) + " HTTP/1.1~§¤~", longHead},

	// Methods
	{"FROB", "FROB /maybe?environment=uat HTTP/1.1~§¤~", notDone},
	{"FROB elsewhere", "FROB /nowhere HTTP/1.1~§¤~", notThere},
	{"TRACE", "TRACE /maybe?environment=uat HTTP/1.1~§¤~", notDone},
	{"OPTIONS", "OPTIONS /maybe HTTP/1.1~§¤~", notDone},
	{"OPTIONS *", "OPTIONS * HTTP/1.1~§¤~", notThere},
	{"OPTIONS * without a key", "OPTIONS * HTTP/1.1~§~", noKey},
	{"PATCH", "PATCH /maybe?environment=uat HTTP/1.1~§¤~", notDone},
	{"CONNECT", "CONNECT uat:80 HTTP/1.1~§¤~", notThere},
	{"CONNECT without a key", "CONNECT uat:80 HTTP/1.1~§~", noKey},
	{"CONNECT with a path", "CONNECT /maybe HTTP/1.1~§¤~", notDone},
	{"PRI", "PRI * HTTP/2.0~~SM~~", noKey},
	{"a method of odd letters", "G@T /maybe HTTP/1.1~§¤~", malformed},
	{"a method in brackets", "(GET) /maybe HTTP/1.1~§¤~", malformed},
	{"no method", " /maybe HTTP/1.1~§¤~", malformed},
	{"a method of 20 kB", strings.Repeat("X", 20<<10) + " / HTTP/1.1~§¤~", longHead},
	{"HEAD of what is not there", "HEAD /nowhere HTTP/1.1~§¤~", "404"},

	// Targets
	{"two slashes", "GET // HTTP/1.1~§¤~", notThere},
	{"two slashes without a key", "GET // HTTP/1.1~§~", noKey},
	{"two slashes in front", "GET //maybe?environment=uat HTTP/1.1~§¤~", notThere},
	{"a slash behind", "GET /maybe/?environment=uat HTTP/1.1~§¤~", notThere},
	{"dots", "GET /../maybe?environment=uat HTTP/1.1~§¤~", notThere},
	{"a dot", "GET /./maybe?environment=uat HTTP/1.1~§¤~", notThere},
	{"dots that are escaped", "GET /%2e%2e/etc/passwd HTTP/1.1~§¤~", notThere},
	{"an escaped slash", "GET /%2fmaybe HTTP/1.1~§¤~", notThere},
	{"an escaped question mark", "GET /maybe%3fenvironment=uat HTTP/1.1~§¤~", notThere},
	{"a bad escape in the path", "GET /%zz HTTP/1.1~§¤~", malformed},
	{"an absolute URI", "GET http://call-me.example/maybe?environment=uat HTTP/1.1~§¤~", "200"},
	{"an absolute URI of another host", "GET http://elsewhere/maybe?environment=uat HTTP/1.1~§¤~", "200"},
	{"an absolute URI without a path", "GET http://call-me.example HTTP/1.1~§¤~", notThere},
	{"an absolute URI with a key in it", "GET http://x:" + testKey + "@call-me.example/maybe?environment=uat HTTP/1.1~§~", noKey},
	{"another scheme", "GET ftp://call-me.example/healthz HTTP/1.1~§¤~", `200 {"status":"ok"}`},
	{"a relative path", "GET maybe HTTP/1.1~§¤~", malformed},
	{"a fragment", "GET /healthz#x HTTP/1.1~§¤~", `404 {"code":404,"message":"not found"}`},
	{"a question mark alone", "GET ? HTTP/1.1~§¤~", malformed},

	// Parameters
	{"no environment", "GET /maybe HTTP/1.1~§¤~", unfit("environment is required")},
	{"an empty query", "GET /maybe? HTTP/1.1~§¤~", unfit("environment is required")},
	{"ampersands", "GET /maybe?&&& HTTP/1.1~§¤~", unfit("environment is required")},
	{"ampersands between", "GET /maybe?&environment=uat& HTTP/1.1~§¤~", "200"},
	{"no equals sign", "GET /maybe?environment HTTP/1.1~§¤~", unfit("environment is required")},
	{"two equals signs", "GET /maybe?environment==uat HTTP/1.1~§¤~", "200"},
	{"a name of nothing", "GET /maybe?environment=uat&=x HTTP/1.1~§¤~", unfit(`\"\" is unknown`)},
	{"a short name", "GET /maybe?env=uat HTTP/1.1~§¤~", unfit(`\"env\" is unknown; did you mean \"environment\"?`)},
	{"another name", "GET /maybe?environment=uat&x=1 HTTP/1.1~§¤~", unfit(`\"x\" is unknown`)},
	{"another case", "GET /maybe?Environment=uat HTTP/1.1~§¤~", unfit(`\"Environment\" is unknown; did you mean \"environment\"?`)},
	{"brackets", "GET /maybe?environment[]=uat HTTP/1.1~§¤~", unfit(`\"environment[]\" is unknown; did you mean \"environment\"?`)},
	{"twice", "GET /maybe?environment=uat&environment=uat HTTP/1.1~§¤~", bad(`parameter \"environment\" is repeated`)},
	{"twice, once escaped", "GET /maybe?environment=uat&%65nvironment=prod HTTP/1.1~§¤~", bad(`parameter \"environment\" is repeated`)},
	{"twice, once in a form", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 16~~environment=prod", unfit("a request for several slots needs an id")},
	{"%zz", "GET /maybe?environment=%zz HTTP/1.1~§¤~", bad(`invalid URL escape \"%zz\"`)},
	{"% alone", "GET /maybe?environment=% HTTP/1.1~§¤~", bad(`invalid URL escape \"%\"`)},
	{"%u", "GET /maybe?environment=%u0041 HTTP/1.1~§¤~", bad(`invalid URL escape \"%u0\"`)},
	{"a semicolon", "GET /maybe?environment=uat;holder=x HTTP/1.1~§¤~", bad("invalid semicolon separator in query")},
	{"a NUL", "GET /maybe?environment=a%00b HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"a line end", "GET /maybe?environment=a%0d%0ab HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"an ESC", "GET /maybe?environment=%1b[2J HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"a DEL", "GET /maybe?environment=a%7f HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"a C1 control", "GET /maybe?environment=a%c2%85b HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"a plus at the end", "GET /maybe?environment=uat+ HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"a wide space at the end", "GET /maybe?environment=uat%e3%80%80 HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"invalid UTF-8", "GET /maybe?environment=%ff HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"invalid UTF-8, unescaped", "GET /maybe?environment=\xff HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"a surrogate", "GET /maybe?environment=%ed%a0%80 HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"an overlong slash", "GET /maybe?environment=%c0%af HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"129 bytes", "GET /maybe?environment=" + strings.Repeat("x", 129) + " HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"128 bytes", "GET /maybe?environment=" + strings.Repeat("x", 128) + " HTTP/1.1~§¤~", "200"},
	{"RTL marks", "GET /maybe?environment=%e2%80%aeuat HTTP/1.1~§¤~", unfit(`environment cannot be \"\\u202euat\": it has an invisible character`)},
	{"a byte order mark", "GET /maybe?environment=%ef%bb%bfuat HTTP/1.1~§¤~", unfit(`environment cannot be \"\\ufeffuat\": it has an invisible character`)},
	{"dots for a name", "GET /maybe?environment=../../etc/passwd HTTP/1.1~§¤~", "200"},
	{"a script for a name", "GET /maybe?environment=%3Cscript%3E HTTP/1.1~§¤~", "200"},
	{"the key in the URL", "GET /maybe?environment=uat&X-API-KEY=" + testKey + " HTTP/1.1~§~", noKey},
	{"the key in the URL too", "GET /maybe?environment=uat&api_key=" + testKey + " HTTP/1.1~§¤~", bad("the key is sent in its header, and nowhere else")},
	{"id of seven bytes", "POST /maybe?environment=uat&id=1234567 HTTP/1.1~§¤~", unfit("id must be 8 to 128 printable ASCII characters")},
	{"id with a NUL", "POST /maybe?environment=uat&id=12345678%00 HTTP/1.1~§¤~", unfit("id must be 8 to 128 printable ASCII characters")},
	{"ttl of a century", "POST /maybe?environment=uat&ttl=876000h HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"ttl beyond all numbers", "POST /maybe?environment=uat&ttl=99999999999999999999h HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"ttl NaN", "POST /maybe?environment=uat&ttl=NaN HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"wait below zero", "POST /maybe?environment=uat&wait=-1s HTTP/1.1~§¤~", unfit("wait must be a duration such as 25s")},
	{"fence below zero", "DELETE /maybe?environment=uat&force=1&fence=-1 HTTP/1.1~§¤~", unfit("fence must be the number that a grant returned")},
	{"fence in hexadecimal", "DELETE /maybe?environment=uat&force=1&fence=0x10 HTTP/1.1~§¤~", unfit("fence must be the number that a grant returned")},
	{"javascript:", "POST /maybe?environment=uat&url=javascript:alert(1) HTTP/1.1~§¤~", unfit("url must be an http or https link of at most 2048 bytes")},
	{"since for ever", "GET /history?since=99999d HTTP/1.1~§¤~", unfit("since must be a duration such as 24h or 7d")},
	{"limit of a million", "GET /history?limit=1000000 HTTP/1.1~§¤~", unfit("limit must be 1 to 1000")},

	// Headers
	{"no Host", "GET /healthz HTTP/1.1~¤~", malformed + ": missing required Host header"},
	{"two Hosts", "GET /healthz HTTP/1.1~§§¤~", malformed},
	{"an odd Host", "GET /healthz HTTP/1.1~Host: a b~¤~", malformed + ": malformed Host header"},
	{"a header without a colon", "GET /healthz HTTP/1.1~§nonsense~~", malformed},
	{"a header without a name", "GET /healthz HTTP/1.1~§: x~~", malformed},
	{"a space before the colon", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY : " + testKey + "~~", malformed + ": invalid header name"},
	{"a NUL in a header", "GET /healthz HTTP/1.1~§X: a\x00b~~", malformed},
	{"a bare CR in a header", "GET /healthz HTTP/1.1~§X: a\rb~~", malformed},
	{"obs-fold", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY: canary~ -key~~", noKey},
	{"a first header that is folded", "GET /healthz HTTP/1.1~ folded: x~§¤~", malformed},
	{"bare LF", "GET /maybe?environment=uat HTTP/1.1\nHost: x\nX-API-KEY: " + testKey + "\n\n", "200"},
	{"a header of 20 kB", "GET /healthz HTTP/1.1~§X: " + strings.Repeat("x", 20<<10) + "~~", longHead},
	{"a header of 10 MB", "GET /healthz HTTP/1.1~§X: " + strings.Repeat("x", 10<<20) + "~~", longHead},
	{"5,000 headers", "GET /healthz HTTP/1.1~§" + strings.Repeat("X: y~", 5000) + "~", longHead},
	{"a header of 15 kB", "GET /healthz HTTP/1.1~§X: " + strings.Repeat("x", 15<<10) + "~~", `200 {"status":"ok"}`},
	{"the key twice", "GET /maybe?environment=uat HTTP/1.1~§¤¤~", bad("the key is sent twice; use X-API-KEY or HTTP Basic, not both")},
	{"a right and a wrong key", "GET /maybe?environment=uat HTTP/1.1~§¤X-API-KEY: wrong~~", noKey},
	{"two kinds of keys", "GET /maybe?environment=uat HTTP/1.1~§¤Authorization: Basic YTpi~~", noKey},
	{"no key", "GET /maybe?environment=uat HTTP/1.1~§~", noKey},
	{"an empty key", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY:~~", noKey},
	{"a key of 10 kB", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY: " + strings.Repeat("x", 10<<10) + "~~", noKey},
	{"a key of other bytes", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY: \xff\xfe~~", noKey},
	{"Basic that is no base64", "GET /maybe?environment=uat HTTP/1.1~§Authorization: Basic !~~", noKey},
	{"Basic without a colon", "GET /maybe?environment=uat HTTP/1.1~§Authorization: Basic YQ==~~", noKey},
	{"Expect of something else", "POST /maybe?environment=uat HTTP/1.1~§¤Expect: x~~", "417"},
	{"Upgrade", "GET /maybe?environment=uat HTTP/1.1~§¤Connection: Upgrade~Upgrade: websocket~~", "200"},
	{"Upgrade to h2c", "GET /maybe?environment=uat HTTP/1.1~§¤Connection: Upgrade, HTTP2-Settings~Upgrade: h2c~HTTP2-Settings: AAMAAABk~~", "200"},
	{"Range", "GET /openapi.yaml HTTP/1.1~§Range: bytes=0-0~~", noKey},
	{"another origin", "POST /maybe?environment=uat HTTP/1.1~§¤Origin: https://evil.example~~", bad("a page of another site may not call this")},
	{"another method in a header", "GET /maybe?environment=uat HTTP/1.1~§¤X-HTTP-Method-Override: DELETE~~", "200"},

	// Bodies
	{"two lengths", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 1~Content-Length: 2~~xx", malformed},
	{"two lengths in one", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 1, 2~~xx", malformed},
	{"the same length twice", "POST /maybe?environment=twice HTTP/1.1~§¤Content-Length: 2~Content-Length: 2~~xx", "201"},
	{"a length below zero", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: -1~~", malformed},
	{"a length with a sign", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: +1~~x", malformed},
	{"a length in hexadecimal", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 0x1~~x", malformed},
	{"a length beyond all numbers", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 99999999999999999999~~", malformed},
	{"a length of nothing", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length:~~", malformed},
	{"a length and chunks", "POST /maybe?environment=both HTTP/1.1~§¤Content-Length: 3~Transfer-Encoding: chunked~~0~~", "201"},
	{"two encodings", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~Transfer-Encoding: chunked~~0~~", "501 Unsupported transfer encoding"},
	{"an unknown encoding", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: gzip~~", "501 Unsupported transfer encoding"},
	{"an encoding in disguise", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: xchunked~~0~~", "501 Unsupported transfer encoding"},
	{"chunks that are none", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~zz~~", bad("reading the body: invalid byte in chunk length")},
	{"chunks that end too soon", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~5~x¶", bad("reading the body: unexpected EOF")},
	{"a chunk without its end", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~1~xy~0~~", bad("reading the body: malformed chunked encoding")},
	{"chunked HTTP/1.0, which has no chunks", "POST /maybe?environment=old HTTP/1.0~¤Transfer-Encoding: chunked~~0~~", "201"},
	{"a body that ends too soon", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 10~~x¶", bad("reading the body: unexpected EOF")},
	{"a body of a GET", "GET /maybe?environment=uat HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 8~~holder=x", "200"},
	{"a form that is malformed", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 3~~%zz", bad(`invalid URL escape \"%zz\"`)},
	{"a multipart form that is malformed", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: multipart/form-data; boundary=x~Content-Length: 3~~xyz", bad("multipart: NextPart: EOF")},
	{"a multipart form without a boundary", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: multipart/form-data~Content-Length: 3~~xyz", bad("multipart: boundary is empty")},
	{"a file", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: multipart/form-data; boundary=x~Content-Length: 78~~--x~Content-Disposition: form-data; name=\"holder\"; filename=\"f\"~~y~--x--~", bad("a file is not expected")},
	{"another kind of body", "POST /maybe?environment=json HTTP/1.1~§¤Content-Type: application/json~Content-Length: 9~~{\"a\":nil}", "201"},
	{"a kind that is no kind", "POST /maybe?environment=kind HTTP/1.1~§¤Content-Type: ;;;~Content-Length: 1~~x", "201"},
	{"a body of 65 kB", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 65537~~" + strings.Repeat("x", 65537), tooBig},
	{"a body said to be 1 GB", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 1073741824~~x", tooBig},
	{"a long body without a key", "POST /maybe?environment=uat HTTP/1.1~§Content-Length: 100000~~" + strings.Repeat("x", 100000), noKey},

	// Several requests on one connection
	{"pipelining", "GET /maybe?environment=p HTTP/1.1~§¤~POST /maybe?environment=p HTTP/1.1~§¤~GET /maybe?environment=p HTTP/1.1~§¤~DELETE /maybe?environment=p HTTP/1.1~§¤~GET /maybe?environment=p HTTP/1.1~§¤~", "200|201|403|204|200"},
	{"pipelining after no key", "GET /maybe?environment=p HTTP/1.1~§~POST /maybe?environment=p HTTP/1.1~§¤~", noKey},
	{"pipelining after nonsense", "GET /%zz HTTP/1.1~§¤~POST /maybe?environment=p HTTP/1.1~§¤~", malformed},
	{"a request in a body", "POST /maybe?environment=q HTTP/1.1~§¤Content-Length: 38~~DELETE /maybe?environment=q HTTP/1.1~GET /maybe?environment=q HTTP/1.1~§¤~", "201|403"},
	{"line ends between requests", "GET /maybe?environment=uat HTTP/1.1~§¤~~~GET /healthz HTTP/1.1~§¤~", "200|" + malformed},

	// Other protocols
	{"HTTP/0.9 without a version", "GET /maybe?environment=uat~", malformed},
	{"http in lower case", "GET /healthz http/1.1~§¤~", malformed},
	{"a long version", "GET /healthz HTTP/1.10~§¤~", malformed},
	{"a space after the version", "GET /healthz HTTP/1.1 ~§¤~", malformed},
	{"two CRs", "GET /healthz HTTP/1.1\r~§¤~", malformed},
	{"bare CRs", "GET /healthz HTTP/1.1\rHost: x\r\r¶", malformed},
	{"the preface of HTTP/2, with a key", "PRI * HTTP/2.0~§¤~SM~~", notThere + "|" + malformed},
	{"SOCKS", "\x05\x01\x00¶", malformed},
	{"SSH", "SSH-2.0-OpenSSH_9.0~", malformed},
	{"SMTP", "EHLO call-me.example~", malformed},
	{"RTSP", "OPTIONS rtsp://x/y RTSP/1.0~~", malformed},
	{"a proxy's announcement", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2~GET /healthz HTTP/1.1~§~", malformed},
	{"a proxy's announcement in bytes", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", malformed},

	// More targets
	{"a POST to another host", "POST http://elsewhere/maybe?environment=abs HTTP/1.1~§¤~", "201"},
	{"a port that is none", "GET http://call-me.example:x/healthz HTTP/1.1~§¤~", malformed},
	{"half a bracket", "GET http://[::1/healthz HTTP/1.1~§¤~", malformed},
	{"a scheme without a host", "GET mailto:x HTTP/1.1~§¤~", notThere},
	{"CONNECT to a URL", "CONNECT http://x/ HTTP/1.1~§¤~", notThere},
	{"a star", "GET * HTTP/1.1~§¤~", notThere},
	{"a backslash", "GET /\\maybe?environment=uat HTTP/1.1~§¤~", notThere},
	{"a parameter of the path", "GET /maybe;x=1?environment=uat HTTP/1.1~§¤~", notThere},
	{"an escaped letter", "GET /%6daybe?environment=uat HTTP/1.1~§¤~", "200"},
	{"an escaped slash at the end", "GET /maybe%2f?environment=uat HTTP/1.1~§¤~", notThere},
	{"an escaped dot without a key", "GET /page%2ecss HTTP/1.1~§~", noKey},
	{"escaped dots behind a path", "GET /maybe/%2e%2e/environments HTTP/1.1~§¤~", notThere},
	{"an escaped NUL in the path", "GET /maybe%00 HTTP/1.1~§¤~", notThere},
	{"an escaped line end in the path", "GET /%0d%0aX:y HTTP/1.1~§¤~", notThere},
	{"upper case", "GET /MAYBE?environment=uat HTTP/1.1~§¤~", notThere},
	{"a long URL of nothing", "GET /" + strings.Repeat("x", 9<<10) + " HTTP/1.1~§¤~", longURL},
	{"a long URL of a file", "GET /page.css?" + strings.Repeat("x", 9<<10) + " HTTP/1.1~§¤~", longURL},
	{"a long URL without a key", "GET /" + strings.Repeat("x", 9<<10) + " HTTP/1.1~§~", noKey},
	{"HEAD of what has no end, and another call", "HEAD /events HTTP/1.1~§¤~HEAD /healthz HTTP/1.1~§¤~", "200|200"},

	// More parameters
	{"a plus within", "GET /maybe?environment=a+b HTTP/1.1~§¤~", "200"},
	{"a space without a break", "GET /maybe?environment=a%c2%a0 HTTP/1.1~§¤~", unfit("environment must have no control characters, and no space at either end")},
	{"an overlong NUL", "GET /maybe?environment=a%c0%80 HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"two surrogates", "GET /maybe?environment=%ed%a0%bd%ed%b8%80 HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"beyond Unicode", "GET /maybe?environment=%f4%90%80%80 HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"an environment of the history that is none", "GET /history?environment=%ff HTTP/1.1~§¤~", unfit("environment must be 1 to 128 bytes of UTF-8")},
	{"a holder of the history that is none", "GET /history?holder=%ff HTTP/1.1~§¤~", unfit("holder must be at most 256 bytes of UTF-8")},
	{"an age of nothing", "GET /?since=nonsense HTTP/1.1~§¤~", unfit("since is 24h or 7d on this page")},
	{"a name of 7 kB", "GET /maybe?environment=uat&" + strings.Repeat("x", 7<<10) + "=1 HTTP/1.1~§¤~", unfit(`\"` + strings.Repeat("x", 125) + `…\" is unknown`)},
	{"a name of 7 kB twice", "GET /maybe?" + strings.Repeat(strings.Repeat("x", 3<<10)+"&", 2) + " HTTP/1.1~§¤~", bad(`parameter \"` + strings.Repeat("x", 125) + `…\" is repeated`)},
	{"a name of controls", "GET /maybe?environment=uat&%00%1b%e2%80%ae=1 HTTP/1.1~§¤~", unfit(`\"\\x00\\x1b\\u202e\" is unknown`)},
	{"the key as a value", "GET /maybe?environment=" + testKey + " HTTP/1.1~§¤~", bad("the key is sent in its header, and nowhere else")},
	{"the key as a name", "GET /maybe?environment=uat&" + testKey + " HTTP/1.1~§¤~", bad("the key is sent in its header, and nowhere else")},
	{"the key in a form", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: " + fmt.Sprint(len(testKey)+7) + "~~reason=" + testKey, bad("the key is sent in its header, and nowhere else")},
	{"a holder of 257 bytes", "POST /maybe?environment=uat&holder=" + strings.Repeat("h", 257) + " HTTP/1.1~§¤~", unfit("holder must be at most 256 bytes of UTF-8")},
	{"a holder of white space", "POST /maybe?environment=uat&holder=+%09 HTTP/1.1~§¤~", unfit("holder must not be only white space")},
	{"a new holder of white space", "DELETE /maybe?environment=uat&id=12345678&to=+ HTTP/1.1~§¤~", unfit("holder must not be only white space")},
	{"a link with a line end", "POST /maybe?environment=uat&url=http://x/%0a HTTP/1.1~§¤~", unfit("url must be an http or https link of at most 2048 bytes")},
	{"data:", "POST /maybe?environment=uat&url=data:text/html,x HTTP/1.1~§¤~", unfit("url must be an http or https link of at most 2048 bytes")},
	{"a link without a scheme", "POST /maybe?environment=uat&url=//x/ HTTP/1.1~§¤~", unfit("url must be an http or https link of at most 2048 bytes")},
	{"a link without a host", "POST /maybe?environment=uat&url=http://:80/ HTTP/1.1~§¤~", unfit("url must be an http or https link of at most 2048 bytes")},
	{"wait NaN", "POST /maybe?environment=uat&wait=NaN HTTP/1.1~§¤~", unfit("wait must be a duration such as 25s")},
	{"wait without a unit", "POST /maybe?environment=uat&wait=5 HTTP/1.1~§¤~", unfit("wait must be a duration such as 25s")},
	{"wait of one too many", "POST /maybe?environment=uat&wait=9223372036854775808ns HTTP/1.1~§¤~", unfit("wait must be a duration such as 25s")},
	{"wait in other digits", "POST /maybe?environment=uat&wait=%d9%a5s HTTP/1.1~§¤~", unfit("wait must be a duration such as 25s")},
	{"wait twice", "POST /maybe?environment=uat&wait=1s&wait=2s HTTP/1.1~§¤~", bad(`parameter \"wait\" is repeated`)},
	{"ttl with an exponent", "POST /maybe?environment=uat&ttl=1e9h HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"ttl below zero", "POST /maybe?environment=uat&ttl=-1s HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"ttl of minus nothing", "POST /maybe?environment=uat&ttl=-0 HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"ttl of less than a nanosecond", "POST /maybe?environment=uat&ttl=0.4ns HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"ttl of less than a second", "POST /maybe?environment=uat&ttl=999ms HTTP/1.1~§¤~", unfit("ttl must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"claim of nothing known", "POST /maybe?environment=uat&claim=x HTTP/1.1~§¤~", unfit("claim must be a duration such as 90s or 2h, from 1s to 720h0m0s, or 0")},
	{"a renewal of nobody", "PUT /maybe?environment=uat HTTP/1.1~§¤~", unfit("id or holder is required")},
	{"force of two", "DELETE /maybe?environment=uat&force=2 HTTP/1.1~§¤~", unfit("force must be 1 or 0")},
	{"force of nothing", "DELETE /maybe?environment=uat&force= HTTP/1.1~§¤~", unfit("force must be 1 or 0")},
	{"force, and an empty fence", "DELETE /maybe?environment=uat&force=1&fence= HTTP/1.1~§¤~", unfit("fence must be the number that a grant returned")},
	{"fence beyond all numbers", "DELETE /maybe?environment=uat&force=1&fence=18446744073709551616 HTTP/1.1~§¤~", unfit("fence must be the number that a grant returned")},
	{"force and id", "DELETE /maybe?environment=uat&force=1&id=12345678 HTTP/1.1~§¤~", unfit("id and force exclude each other: an id ends its own lease")},
	{"a slot of nobody", "DELETE /maybe?environment=uat&slot=uat HTTP/1.1~§¤~", unfit("id, holder or force is required")},
	{"an empty id", "DELETE /maybe?environment=uat&id= HTTP/1.1~§¤~", unfit("id, holder or force is required")},

	// More headers
	{"a tab before the colon", "GET /healthz HTTP/1.1~§X\t: y~~", malformed},
	{"tabs around the key", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY:\t" + testKey + "\t~~", "200"},
	{"a DEL in a header", "GET /healthz HTTP/1.1~§X: \x7f~~", malformed},
	{"a key and a NUL", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY: " + testKey + "\x00~~", malformed},
	{"X_API_KEY", "GET /maybe?environment=uat HTTP/1.1~§X_API_KEY: " + testKey + "~~", noKey},
	{"a key and an empty one", "GET /maybe?environment=uat HTTP/1.1~§¤X-API-KEY:~~", noKey},
	{"two keys in one", "GET /maybe?environment=uat HTTP/1.1~§X-API-KEY: " + testKey + ", " + testKey + "~~", noKey},
	{"Bearer", "GET /maybe?environment=uat HTTP/1.1~§Authorization: Bearer " + testKey + "~~", noKey},
	{"a key in a cookie", "GET /maybe?environment=uat HTTP/1.1~§Cookie: X-API-KEY=" + testKey + "~~", noKey},
	{"a key in a trailer", "POST /maybe?environment=uat HTTP/1.1~§Transfer-Encoding: chunked~Trailer: X-API-KEY~~0~X-API-KEY: " + testKey + "~~", noKey},
	{"an empty Host", "GET /healthz HTTP/1.1~Host:~¤~", `200 {"status":"ok"}`},
	{"two Hosts that differ", "GET /healthz HTTP/1.1~Host: a~Host: b~¤~", malformed},
	{"a Host with a path", "GET /healthz HTTP/1.1~Host: a/b~¤~", malformed + ": malformed Host header"},
	{"300 headers", "GET /healthz HTTP/1.1~§" + strings.Repeat("X: y~", 300) + "~", `200 {"status":"ok"}`},
	{"a connection that names the key", "GET /maybe?environment=uat HTTP/1.1~§¤Connection: X-API-KEY~~", "200"},
	{"no origin, said aloud", "POST /maybe?environment=uat HTTP/1.1~§¤Origin: null~~", bad("a page of another site may not call this")},
	{"another site without a key", "DELETE /maybe?environment=uat HTTP/1.1~§Sec-Fetch-Site: cross-site~~", bad("a page of another site may not call this")},
	{"Expect without a body", "POST /maybe?environment=expect HTTP/1.1~§¤Expect: 100-continue~~", "201"},
	{"Expect with a body", "POST /maybe HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Expect: 100-continue~Content-Length: 19~~environment=expect2", "100|201"},
	{"Expect without a key", "POST /maybe?environment=uat HTTP/1.1~§Expect: 100-continue~Content-Length: 10~~", noKey},
	{"Expect of too much", "POST /maybe?environment=uat HTTP/1.1~§¤Expect: 100-continue~Content-Length: 100000~~", tooBig},
	{"Upgrade to h2c with a POST", "POST /maybe?environment=h2c HTTP/1.1~§¤Connection: Upgrade~Upgrade: h2c~Content-Length: 0~~", "201"},

	// More bodies
	{"zeros before a length", "POST /maybe?environment=zeros HTTP/1.1~§¤Content-Length: 0002~~xx", "201"},
	{"a space in a length", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 1 2~~xx", malformed},
	{"the largest length", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Length: 9223372036854775807~~x", tooBig},
	{"chunks and a length, and a call behind them", "POST /maybe?environment=te HTTP/1.1~§¤Transfer-Encoding: chunked~Content-Length: 6~~0~~GET /maybe?environment=te HTTP/1.1~§¤~", "201"},
	{"identity", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: identity~~", "501 Unsupported transfer encoding"},
	{"a vertical tab before chunked", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: \x0bchunked~~0~~", malformed},
	{"a space after Transfer-Encoding", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding : chunked~~0~~", malformed + ": invalid header name"},
	{"a chunk below zero", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~-1~x~0~~", bad(`reading the body: invalid byte in chunk length`)},
	{"a chunk in 0x", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~0x1~x~0~~", bad(`reading the body: invalid byte in chunk length`)},
	{"a chunk beyond all numbers", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~10000000000000000~x", bad(`reading the body: http chunk length too large`)},
	{"a chunk of no size", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~~x~0~~", bad(`reading the body: empty hex number for chunk length`)},
	{"a space before a chunk", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~ 1~x~0~~", bad(`reading the body: invalid byte in chunk length`)},
	{"chunks with bare LF", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~1\nx\n0\n\n", bad(`reading the body: chunked line ends with bare LF`)},
	{"a trailer without a colon", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~0~bad~~", bad(`reading the body: malformed MIME header: missing colon: \"bad\"`)},
	{"a chunk extension", "POST /maybe?environment=ext HTTP/1.1~§¤Transfer-Encoding: chunked~~1;a=b~x~0~~", "201"},
	{"a chunk extension of 5 kB", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~1;" + strings.Repeat("a", 5000) + "~x~0~~", bad(`reading the body: header line too long`)},
	{"many chunk extensions", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~" + strings.Repeat("1;"+strings.Repeat("a", 300)+"~x~", 100) + "0~~", bad(`reading the body: chunked encoding contains too much non-data`)},
	{"5,000 chunks", "POST /maybe?environment=tiny HTTP/1.1~§¤Transfer-Encoding: chunked~~" + strings.Repeat("1~x~", 5000) + "0~~", "201"},
	{"chunks of 68 kB", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~" + strings.Repeat("1000~"+strings.Repeat("x", 4096)+"~", 17) + "0~~", tooBig},
	{"a trailer", "POST /maybe?environment=trailer HTTP/1.1~§¤Transfer-Encoding: chunked~~0~X: y~~", "201"},
	{"a trailer of 70 kB", "POST /maybe?environment=uat HTTP/1.1~§¤Transfer-Encoding: chunked~~0~X: " + strings.Repeat("x", 70000) + "~~", bad(`reading the body: http: suspiciously long trailer after chunked body`)},
	{"a form in chunks", "POST /maybe HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Transfer-Encoding: chunked~~5~envir~f~onment=inchunks~0~~", "201"},
	{"a form of a DELETE", "DELETE /maybe HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 18~~environment=nobody", "204"},
	{"a form of a GET", "GET /maybe HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 18~~environment=nobody", unfit("environment is required")},
	{"the same in the URL and in a form", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 15~~environment=uat", unfit("a request for several slots needs an id")},
	{"20,000 parameters", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: application/x-www-form-urlencoded~Content-Length: 40000~~" + strings.Repeat("a&", 20000), bad("number of URL query parameters exceeded limit")},
	{"two kinds of body", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: text/plain~Content-Type: application/x-www-form-urlencoded~Content-Length: 11~~id=12345678", bad("Content-Type is repeated")},
	{"a multipart form", "POST /maybe HTTP/1.1~§¤Content-Type: multipart/form-data; boundary=x~Content-Length: 73~~--x~Content-Disposition: form-data; name=\"environment\"~~multi~--x--~", "201"},
	{"a part without a name", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: multipart/form-data; boundary=x~Content-Length: 49~~--x~Content-Disposition: form-data~~y~--x--~", bad("a part has no name")},
	{"two parts of one name", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: multipart/form-data; boundary=x~Content-Length: 117~~--x~Content-Disposition: form-data; name=holder~~a~--x~Content-Disposition: form-data; name=holder~~b~--x--~", bad(`parameter \"holder\" is repeated`)},
	{"a part that is cut", "POST /maybe?environment=uat HTTP/1.1~§¤Content-Type: multipart/form-data; boundary=x~Content-Length: 53~~--x~Content-Disposition: form-data; name=holder~~a", bad("unexpected EOF")},
}

func TestHostileRequestsGetExactlyTheseResponses(t *testing.T) {
	s := newSite(t, "")
	for _, c := range hostileTable {
		t.Run(c.name, func(t *testing.T) {
			want := strings.Split(c.want, "|")
			if c.want == "" {
				want = nil
			}
			got := s.hostile(t, expandHostile.Replace(c.send), strings.Contains(c.send, "¶"), len(want))
			if !slices.Equal(got, want) {
				t.Errorf("the responses are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	if len(hostileTable) < 100 {
		t.Errorf("only %d requests", len(hostileTable))
	}
	s.call("GET /maybe?environment=uat").want(t, 200, "")
}
