//go:build windows

// Program for tests under wine: what a command of call-me run does on Windows. The first
// argument says what.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	args := os.Args[2:]
	switch os.Args[1] {
	case "exit": // CODE
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "show": // prints the variables of call-me, its arguments and its input
		var input string
		fmt.Scan(&input)
		json.NewEncoder(os.Stdout).Encode(append([]string{os.Getenv("CALL_ME_ENVIRONMENT"),
			os.Getenv("CALL_ME_SLOT"), os.Getenv("CALL_ME_HOLDER"), input}, args...))
	case "tick": // FILE: appends to it until the file "stop" is beside it
		signal.Ignore(os.Interrupt)
		tick(args[0])
	case "start": // COMMAND...: starts it in another process group, and exits with 0
		start(args)
	case "parent": // COMMAND...: starts it in another process group, and waits for it
		start(args).Wait()
	case "terminate": // FILE COMMAND...: starts the command, and calls TerminateProcess once FILE exists
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for !exists(args[0]) {
			time.Sleep(10 * time.Millisecond)
		}
		cmd.Process.Kill()
		cmd.Wait()
	case "trap": // FILE CODE: exits with CODE after Ctrl-Break. It makes FILE when it is ready
		interrupted := make(chan os.Signal, 1)
		signal.Notify(interrupted, os.Interrupt)
		os.WriteFile(args[0], nil, 0o600)
		<-interrupted
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	}
}

func start(args []string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	return cmd
}

func tick(path string) {
	for !exists(filepath.Join(filepath.Dir(path), "stop")) {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			file.WriteString("x")
			file.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
