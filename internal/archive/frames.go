package archive

import (
	"io"

	"github.com/klauspost/compress/zstd"
)

// unlistedFrames returns the number of whole frames from an offset on, of which it counts at most
// two. A crash leaves one at most: each frame is listed in the manifest before the next one is
// written. Two mean that the manifest has lost lines.
func unlistedFrames(data io.ReaderAt, offset int64) int {
	for n := range 2 {
		length, ok := frameLength(data, offset)
		if !ok {
			return n
		}
		offset += length
	}
	return 2
}

// frameLength returns the length of the frame at an offset, if it is there to its end. It reads
// the headers of the frame's blocks only (RFC 8878, section 3.1.1).
func frameLength(data io.ReaderAt, offset int64) (length int64, ok bool) {
	var start [zstd.HeaderMaxSize]byte
	n, _ := data.ReadAt(start[:], offset) // a short frame at the end of the file is an error, too
	var header zstd.Header
	if err := header.Decode(start[:n]); err != nil || header.Skippable {
		return 0, false
	}
	at := offset + int64(header.HeaderSize)
	for last := false; !last; {
		var block [3]byte
		if _, err := data.ReadAt(block[:], at); err != nil {
			return 0, false
		}
		bits := int64(block[0]) | int64(block[1])<<8 | int64(block[2])<<16
		last = bits&1 == 1
		size := bits >> 3
		if isRunLength := bits>>1&3 == 1; isRunLength {
			size = 1
		}
		at += int64(len(block)) + size
	}
	if header.HasCheckSum {
		at += 4
	}
	// The last byte must be there.
	if _, err := data.ReadAt(start[:1], at-1); err != nil {
		return 0, false
	}
	return at - offset, true
}
