// SPDX-License-Identifier: BSD-3-Clause

// The program cases runs every case of a folder that the library's build exports.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	fewestCases  = 60
	fewestErrors = 5
)

type summary struct {
	cases, errors, failures int
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cases <folder of cases>")
		os.Exit(2)
	}
	total, err := runAll(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("go: %d cases, %d errors, %d failures\n", total.cases, total.errors, total.failures)
	if total.failures > 0 || total.cases < fewestCases || total.errors < fewestErrors {
		os.Exit(1)
	}
}

func runAll(folder string) (summary, error) {
	var total summary
	list, err := os.ReadFile(filepath.Join(folder, "cases.txt"))
	if err != nil {
		return total, err
	}
	for _, name := range strings.Fields(string(list)) {
		if err := total.run(filepath.Join(folder, name+".case")); err != nil {
			fmt.Printf("%s: %v\n", name, err)
			total.failures++
		}
	}
	return total, nil
}

func (total *summary) run(path string) error {
	made, err := readCase(path)
	if err != nil {
		return err
	}
	if made.refusal != nil {
		total.errors++
	} else {
		total.cases++
	}
	return made.run()
}
