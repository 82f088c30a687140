package skills

import "strings"

// Fence is one block of code of a Markdown file.
type Fence struct {
	Language string // what follows the opening backticks
	Code     string
	Line     int // of the opening backticks, from 1
}

// Fences returns the file's blocks of code in order.
func (f File) Fences() []Fence {
	var all []Fence
	var open *Fence
	for i, line := range strings.SplitAfter(string(f.Data), "\n") {
		switch language, fence := strings.CutPrefix(strings.TrimSpace(line), "```"); {
		case fence && open == nil:
			open = &Fence{Language: language, Line: i + 1}
		case fence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.Code += line
		}
	}
	return all
}
