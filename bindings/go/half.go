// SPDX-License-Identifier: BSD-3-Clause

package attention

import (
	"math"
	"unsafe"
)

// A BF16 is a bfloat16, the upper half of a float32: its bits. Arithmetic on it would be that of the
// bits; to compute with one, make it a float32.
type BF16 uint16

// An F16 is IEEE 754's binary16: its bits. Arithmetic on it would be that of the bits.
type F16 uint16

// ToBF16 is the nearest one, of two as near the one whose last bit is 0.
func ToBF16(number float32) BF16 {
	bits := math.Float32bits(number)
	if number != number {
		return BF16(bits>>16 | 0x40)
	}
	return BF16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Float32 is exactly the number.
func (number BF16) Float32() float32 { return math.Float32frombits(uint32(number) << 16) }

// ToF16 is the nearest one, of two as near the one whose last bit is 0; infinite from 65520 on.
func ToF16(number float32) F16 {
	bits := math.Float32bits(number)
	sign, size := F16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case number != number:
		return sign | 0x7e00
	case size >= 0x477ff000:
		return sign | 0x7c00
	case size < 113<<23: // a multiple of 2^-24: adding 1/2 rounds to one
		sum := math.Float32frombits(size) + 0.5
		return sign | F16(math.Float32bits(sum)-math.Float32bits(0.5))
	default:
		return sign | F16((size-112<<23+0xfff+size>>13&1)>>13)
	}
}

// Float32 is exactly the number.
func (number F16) Float32() float32 {
	moved, sign := uint32(number&0x7fff)<<13, uint32(number&0x8000)<<16
	switch number & 0x7c00 {
	case 0: // read as a normal number a subnormal one is by 2^-14 too large
		size := math.Float32frombits(moved+113<<23) - math.Float32frombits(113<<23)
		return math.Float32frombits(math.Float32bits(size) | sign)
	case 0x7c00:
		return math.Float32frombits(moved + 224<<23 | sign)
	default:
		return math.Float32frombits(moved + 112<<23 | sign)
	}
}

// AsBF16 is the same memory: bits that are kept as integers, as the numbers they are.
func AsBF16(bits []uint16) []BF16 { return as[BF16](bits) }

// AsF16 is the same memory: bits that are kept as integers, as the numbers they are.
func AsF16(bits []uint16) []F16 { return as[F16](bits) }

func as[T BF16 | F16](bits []uint16) []T {
	if len(bits) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&bits[0])), len(bits))
}
