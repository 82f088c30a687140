package store

import (
	"encoding/json"
	"reflect"
	"time"
)

// toNanos is how times are stored; the zero time is 0.
func toNanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// toJSON writes maps, lists and plain structs, which cannot fail. Empty maps
// and lists become the empty string.
func toJSON(v any) string {
	if r := reflect.ValueOf(v); (r.Kind() == reflect.Map || r.Kind() == reflect.Slice) && r.Len() == 0 {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// toOptionalJSON writes a struct that may be absent; that becomes the empty
// string.
func toOptionalJSON[T any](v *T) string {
	if v == nil {
		return ""
	}
	return toJSON(v)
}

// fromJSON leaves v alone when the text is empty or was damaged.
func fromJSON(text string, v any) {
	if text != "" {
		_ = json.Unmarshal([]byte(text), v)
	}
}
