// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"attention"
)

// A tensor's elements are a []float32, []float64, []attention.BF16, []attention.F16, []bool,
// []int64, []int32 or []uint8, which view shows.
type tensor struct {
	name     string
	shape    []int
	elements any
	view     *attention.View
}

// An expected is what a result must be, within an absolute tolerance.
type expected struct {
	tensor
	tolerance float64
}

type option struct {
	name, value string
}

type testCase struct {
	call     string
	options  []option
	tensors  []tensor
	expected []expected
	rooms    []*tensor // for gradients
	refusal  *attention.Error
}

// readCase reads records of one line of text, some followed by raw elements.
func readCase(path string) (*testCase, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	made, rest := &testCase{}, bytes.NewBuffer(content)
	for rest.Len() > 0 {
		line, err := rest.ReadString('\n')
		if err == nil {
			err = made.readRecord(strings.TrimSuffix(line, "\n"), rest)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	return made, nil
}

func (made *testCase) readRecord(line string, rest *bytes.Buffer) error {
	record, words, _ := strings.Cut(line, " ")
	switch record {
	case "call":
		made.call = words
	case "option":
		name, value, _ := strings.Cut(words, " ")
		made.options = append(made.options, option{name, value})
	case "tensor":
		name, words, _ := strings.Cut(words, " ")
		read, err := readTensor(name, words, rest)
		made.tensors = append(made.tensors, read)
		return err
	case "expect":
		read, err := readExpected(words, rest)
		made.expected = append(made.expected, read)
		return err
	case "error":
		code, text, _ := strings.Cut(words, " ")
		number, err := strconv.Atoi(code)
		made.refusal = &attention.Error{Code: attention.Code(number), Message: text}
		return err
	default:
		return fmt.Errorf("unknown record")
	}
	return nil
}

func readExpected(words string, rest *bytes.Buffer) (expected, error) {
	name, words, _ := strings.Cut(words, " ")
	tolerance, words, _ := strings.Cut(words, " ")
	number, err := strconv.ParseFloat(tolerance, 64)
	if err != nil {
		return expected{}, err
	}
	read, err := readTensor(name, words, rest)
	return expected{read, number}, err
}

// readTensor reads the elements that words describe: DTYPE RANK D0 D1 ...
func readTensor(name, words string, rest *bytes.Buffer) (tensor, error) {
	dtype, words, _ := strings.Cut(words, " ")
	rank, lengths, _ := strings.Cut(words, " ")
	shape, count := []int{}, 1
	for _, field := range strings.Fields(lengths) {
		length, err := strconv.Atoi(field)
		if err != nil {
			return tensor{}, err
		}
		shape = append(shape, length)
		count *= length
	}
	if rank != strconv.Itoa(len(shape)) {
		return tensor{}, fmt.Errorf("rank and shape differ")
	}
	switch dtype {
	case "float32":
		return takeTensor[float32](name, shape, count, rest)
	case "float64":
		return takeTensor[float64](name, shape, count, rest)
	case "bfloat16":
		return takeTensor[attention.BF16](name, shape, count, rest)
	case "float16":
		return takeTensor[attention.F16](name, shape, count, rest)
	case "bool":
		return takeTensor[bool](name, shape, count, rest)
	case "int64":
		return takeTensor[int64](name, shape, count, rest)
	case "int32":
		return takeTensor[int32](name, shape, count, rest)
	case "uint8":
		return takeTensor[uint8](name, shape, count, rest)
	default:
		return tensor{}, fmt.Errorf("unknown dtype")
	}
}

func takeTensor[T attention.Element](name string, shape []int, count int, rest *bytes.Buffer) (tensor, error) {
	elements := make([]T, count)
	if err := binary.Read(rest, binary.LittleEndian, elements); err != nil && count > 0 {
		return tensor{}, err
	}
	return makeTensor(name, shape, elements)
}

func makeTensor[T attention.Element](name string, shape []int, elements []T) (tensor, error) {
	view := attention.NewView(elements, shape...)
	return tensor{name, shape, elements, view}, view.Err()
}
