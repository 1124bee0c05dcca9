package main

// How the status page writes names, links, times and durations: the functions of its templates,
// and how its files are sent.

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// pageFunctions are the functions of the templates.
var pageFunctions = template.FuncMap{
	"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock":    func(t time.Time) string { return pageClock(t, time.Now()) },
	"left":     func(t, now time.Time) string { return pageDuration(t.Sub(now)) },
	"ago":      func(t, now time.Time) string { return pageDuration(now.Sub(t)) },
	"spell":    durationText,
	"hours":    func(d time.Duration) int { return int(d.Hours()) },
	"name":     nameOf,
	"holder":   splitHolder,
	"links":    splitLinks,
	"needs":    needsText,
	"id":       pageID,
	"position": pagePosition,
	"busyness": busyness,
	"isSoon":   func(t, now time.Time) bool { return t.Sub(now) < pageSoon },
	"dict":     pageDict,
	"one":      func(r pageRow) *pageLine { return r.only() },
}

// pageClock returns a time of day in UTC, with the day unless that is today. The script of the
// page shows it in the zone of the reader.
func pageClock(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	layout := "Jan 2 15:04"
	switch {
	case t.Format(time.DateOnly) == now.Format(time.DateOnly):
		layout = "15:04"
	case t.Sub(now).Abs() < 6*24*time.Hour:
		layout = "Mon 15:04"
	}
	return t.Format(layout)
}

// pageSoon is how long before its end a lease is said to end soon.
const pageSoon = 10 * time.Minute

// pageDict returns a map of names and values, for a template that needs several.
func pageDict(all ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(all); i += 2 {
		m[fmt.Sprint(all[i])] = all[i+1]
	}
	return m
}

// pageID returns a name as a part of an id in the page: without white space, and the same only
// for the same name.
func pageID(name string) string { return url.QueryEscape(name) }

// pagePosition returns a position in the queue: next, 2nd, 3rd.
func pagePosition(n int) string {
	if n == 1 {
		return "next"
	}
	return ordinal(n)
}

// A pageHolder is a holder in two parts: the one by which people know it, and the rest.
type pageHolder struct{ Name, Rest string }

// splitHolder returns a holder in two parts: of a job its repository or pipeline with the number
// of the run, of a person the name before the at sign. Together they are not the whole of it.
func splitHolder(holder untrusted) pageHolder {
	text := nameOf(holder)
	if system, path, found := strings.Cut(text, ":"); found && !strings.ContainsAny(text, " ") {
		parts := strings.Split(path, "/")
		isNumber := func(part string) bool { return part != "" && strings.Trim(part, "0123456789") == "" }
		if i := slices.IndexFunc(parts, isNumber); i > 0 {
			rest := strings.Join(append([]string{system}, parts[i+1:]...), " · ")
			name := parts[i-1]
			if i > 1 && (name == "run" || name == "job") {
				name = parts[i-2]
			}
			return pageHolder{name + " #" + parts[i], rest}
		}
	}
	if user, host, found := strings.Cut(text, "@"); found && user != "" && !strings.ContainsAny(text, " /:") {
		return pageHolder{user, "@" + host}
	}
	return pageHolder{text, ""}
}

// A pageText is a part of a text: a link, or not.
type pageText struct {
	Text   string
	IsLink bool
}

// textLink matches an http or https link in a text.
var textLink = regexp.MustCompile(`https?://[^\s<>"]*[^\s<>".,;:!?)\]}']`)

// splitLinks returns the parts of a text, so that its links can be followed.
func splitLinks(text untrusted) []pageText {
	shown := text.String()
	var parts []pageText
	begin := 0
	for _, at := range textLink.FindAllStringIndex(shown, -1) {
		parts = append(parts, pageText{shown[begin:at[0]], false}, pageText{shown[at[0]:at[1]], true})
		begin = at[1]
	}
	return append(parts, pageText{shown[begin:], false})
}

// contentPolicy is the Content-Security-Policy of the page: it may load its own style,
// script and worker and data: images, and connect to its own server, and nothing else.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; worker-src 'self'; " +
	"connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// pageHeaders sets the headers that protect the page in a browser.
func pageHeaders(h http.Header, kind string) {
	h.Set("Content-Type", kind)
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// writePage sends a page. It compresses it if the browser takes that, and mayZip is true. Its
// error is always nil.
func writePage(w http.ResponseWriter, r *http.Request, status int, content []byte, mayZip bool) error {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
	pageHeaders(w.Header(), "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept-Encoding")
	if mayZip && takesGzip(r) && len(content) > minZip {
		w.Header().Set("Content-Encoding", "gzip")
		content = zipped(content)
	}
	w.WriteHeader(status)
	w.Write(content) // #nosec G705 -- html/template has escaped it
	return nil
}

// minZip is the size of the smallest page that is compressed, in bytes.
const minZip = 1 << 10

// takesGzip reports whether the client takes a compressed answer.
func takesGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(name) == "gzip" {
			return strings.TrimSpace(weight) != "q=0"
		}
	}
	return false
}

// zipped returns a text in gzip's form.
func zipped(content []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is valid
	z.Write(content)
	z.Close()
	return b.Bytes()
}

// serveAsset returns a handler that sends an embedded file with the content type kind. A
// browser that has it asks whether it is still the same, and is not sent it again.
func serveAsset(name, kind string) handler {
	type file struct {
		content, zipped []byte
		tag             string
		err             error
	}
	read := sync.OnceValue(func() file {
		content, err := assets.ReadFile(name)
		return file{content, zipped(content), fmt.Sprintf(`"%x"`, sha256.Sum256(content))[:18] + `"`, err}
	})
	return func(w http.ResponseWriter, r *http.Request) error {
		f := read()
		if f.err != nil {
			return f.err
		}
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime))
		h := w.Header()
		pageHeaders(h, kind)
		h.Set("Cache-Control", "private, no-cache")
		h.Set("Vary", "Accept-Encoding")
		h.Set("ETag", f.tag)
		if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		content := f.content
		if takesGzip(r) {
			h.Set("Content-Encoding", "gzip")
			content = f.zipped
		}
		w.Write(content)
		return nil
	}
}

// pageDuration returns a duration as the page shows it: to the second below five minutes, then
// to the minute, and to the hour from a day on. The script of the page does the same.
func pageDuration(d time.Duration) string {
	d = max(0, d)
	minutes := int(math.Floor(d.Minutes()))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 5*time.Minute:
		return fmt.Sprintf("%dm%02ds", minutes, int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", minutes)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", minutes/60, minutes%60)
	}
	return fmt.Sprintf("%dd%dh", minutes/60/24, minutes/60%24)
}
