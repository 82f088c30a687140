package tools

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// maxText is the longest result. Agents cut longer ones at places of their own
// choosing, some at 10,000 bytes.
const maxText = 9000

// Keys of machine data in results.
const (
	metaSandbox = "sh.atoll/sandbox"
	metaExec    = "sh.atoll/exec"
	metaProcess = "sh.atoll/process"
	metaFile    = "sh.atoll/file"
	metaPreview = "sh.atoll/preview"
	metaDenied  = "sh.atoll/denied"
	metaError   = "sh.atoll/error"
	metaGit     = "sh.atoll/git"
	metaEgress  = "sh.atoll/egress"
)

// clip keeps head and tail of s so that it has at most max bytes, and says
// what is left out and where it is. Runes stay whole.
func clip(s string, max int, where string) string { return ends(s, 0, max, where) }

// ends is clip for a text from whose middle lost bytes are missing already.
func ends(s string, lost, max int, where string) string {
	if lost == 0 && len(s) <= max {
		return s
	}
	note := func(n int) string { return fmt.Sprintf("\n[… %d bytes left out; %s …]\n", n, where) }
	room := max - len(note(lost+len(s)))
	head := cutEnd(s[:room*2/5])
	tail := cutStart(s[len(s)-room*3/5:])
	return head + note(lost+len(s)-len(head)-len(tail)) + tail
}

// cutEnd drops a rune that was cut in two at the end of s.
func cutEnd(s string) string {
	for i := 0; i < utf8.UTFMax && len(s) > 0; i++ {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
			return s
		}
		s = s[:len(s)-1]
	}
	return s
}

// cutStart drops the rest of a rune at the start of s.
func cutStart(s string) string {
	for i := 0; i < utf8.UTFMax && len(s) > 0 && !utf8.RuneStart(s[0]); i++ {
		s = s[1:]
	}
	return s
}

// printable makes bytes from a sandbox fit for a JSON text.
func printable(b []byte) string {
	return strings.ToValidUTF8(strings.ReplaceAll(string(b), "\x00", "␀"), "�")
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// ago prints how long t is past, coarsely.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
