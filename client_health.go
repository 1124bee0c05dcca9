package main

// call-me health: the client of a container's health check.

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// health asks the server on this machine whether it works: nil, or why not.
func health(ctx context.Context, config healthConfig) error {
	ctx, cancel := context.WithTimeout(ctx, headerTime)
	defer cancel()
	c := &client{base: fmt.Sprintf("http://127.0.0.1:%d", config.Port), http: http.DefaultClient}
	if config.TLSCertificate != "" {
		trust, err := healthTLS(config.TLSCertificate)
		if err != nil {
			return err
		}
		c.base = strings.Replace(c.base, "http:", "https:", 1)
		c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	}
	return c.do(ctx, http.MethodGet, "/healthz", url.Values{}, &map[string]string{})
}
