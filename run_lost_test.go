package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestWhyALeaseIsLostIsTheLastRefusalAndNoGuess(t *testing.T) {
	h := &heldRun{lost: fmt.Errorf("%w: %w", errDeadline, &apiError{errorJSON{Code: 503, Message: "the server's disk is full"}})}
	if got := h.whyLost(); !strings.HasPrefix(got, errDeadline.Error()) || !strings.Contains(got, "disk is full") {
		t.Error(got)
	}
}
