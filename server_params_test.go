package main

import (
	"strings"
	"testing"
	"unsafe"
)

// A stored value does not keep the text of its call in memory, which may be a thousand times as
// long: no value is a part of that text.
func TestAValueIsNoPartOfTheText(t *testing.T) {
	text := "id=12345678&environment=uat&reason=two+words&url=https%3A%2F%2Fci.example&holder=" +
		strings.Repeat("h", 200)
	q, err := parseQuery(text)
	if err != nil || len(q) != 5 {
		t.Fatalf("%v, %v", q, err)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	for _, p := range q {
		at := uintptr(unsafe.Pointer(unsafe.StringData(p.value)))
		if at >= begin && at < begin+uintptr(len(text)) {
			t.Errorf("the value of %s is a part of the text", p.name)
		}
	}
}
