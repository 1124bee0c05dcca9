//go:build !unix

package main

import "syscall"

// Here net/http has to tell who leaves.
const noticesLeaving = false

func hasLeft(syscall.Conn) bool { return false }
