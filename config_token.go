package main

// The token of a job (OpenID Connect) in the configuration of a client, in place of a key:
// where it comes from. client_token.go gets it.

import "os"

// TokenConfig has the settings of a token. It is exported for the same reason as KeyConfig.
type TokenConfig struct {
	OIDCAudience string `split_words:"true" desc:"without API_KEY: the job's own token, for this audience"`
	IDToken      string `split_words:"true" desc:"that token, where the CI system sets it as a variable"`
	TokenFile    string `split_words:"true" desc:"the file of that token; read again before each call"`
}

// A tokenPlace is where a client gets its token.
type tokenPlace int

const (
	noToken            tokenPlace = iota
	tokenInFile                   // CALL_ME_TOKEN_FILE
	tokenInVariable               // CALL_ME_ID_TOKEN
	tokenFromGitHub               // the service whose address GitHub Actions gives to a job
	tokenFromBuildkite            // buildkite-agent
)

// The variables of GitHub Actions, with which a job that has the permission id-token asks for
// a token.
const (
	githubTokenURL = "ACTIONS_ID_TOKEN_REQUEST_URL"
	githubTokenKey = "ACTIONS_ID_TOKEN_REQUEST_TOKEN" // #nosec G101 -- the name of a variable
)

// tokenPlace returns where the token comes from; noToken if a key is set, or if none of the
// settings is. The error is a usage error: there is an audience, and nothing that gives a token.
func (c *clientConfig) tokenPlace() (tokenPlace, error) {
	switch {
	case c.APIKey != "" || c.APIKeyFile != "":
		return noToken, nil
	case c.TokenFile != "":
		return tokenInFile, nil
	case c.IDToken != "":
		return tokenInVariable, nil
	case c.OIDCAudience == "":
		return noToken, nil
	case os.Getenv(githubTokenURL) != "" && os.Getenv(githubTokenKey) != "":
		return tokenFromGitHub, nil
	case os.Getenv("BUILDKITE_AGENT_ACCESS_TOKEN") != "":
		return tokenFromBuildkite, nil
	}
	hint := "set CALL_ME_ID_TOKEN or CALL_ME_TOKEN_FILE, or API_KEY; on GitHub Actions the job needs " +
		"the permission `id-token: write`"
	err := usagef("%s_OIDC_AUDIENCE is set, but nothing here gives a token", variablePrefix)
	return noToken, withHint(err, hint)
}

// githubTokenRequest returns the address and the key with which GitHub Actions gives a token to
// this job.
func githubTokenRequest() (address, key string) {
	return os.Getenv(githubTokenURL), os.Getenv(githubTokenKey)
}

// source returns the place of the token for a sentence.
func (p tokenPlace) source() string {
	return map[tokenPlace]string{
		tokenInFile:        "the file of " + variablePrefix + "_TOKEN_FILE",
		tokenInVariable:    variablePrefix + "_ID_TOKEN",
		tokenFromGitHub:    "GitHub Actions (" + githubTokenURL + ")",
		tokenFromBuildkite: "buildkite-agent oidc request-token",
	}[p]
}

// checkCredential returns a usage error if the client has neither a key nor a token.
func (c *clientConfig) checkCredential() error {
	place, err := c.tokenPlace()
	if err != nil || place != noToken {
		return err
	}
	_, err = c.sentKey()
	return err
}
