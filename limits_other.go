//go:build !unix

package main

// maxWaiters is how many may wait at once.
func maxWaiters() int { return mostWaiters }
