package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// print writes the table of rows and the waterfalls.
func (b *bench) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "measurement\tvalue\tunit\tratio\tagainst\tnotes")
	for _, r := range b.rows {
		ratio := ""
		if r.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(tw, "%s\t%.2f\t%s\t%s\t%s\t%s\n", r.Name, r.Value, r.Unit, ratio, r.Against, r.Detail)
	}
	tw.Flush()
	for _, kind := range []string{"warm", "cold"} {
		if list := b.stage[kind]; len(list) > 0 {
			fmt.Fprintf(w, "\nstages of a %s create, median ms\n", kind)
			printWaterfall(w, list)
		}
	}
}

func printWaterfall(w io.Writer, list []waterfall) {
	var names []string
	took := map[string][]time.Duration{}
	for _, f := range list {
		for _, s := range f {
			if !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
			took[s.Name] = append(took[s.Name], time.Duration(s.Took*float64(time.Millisecond)))
		}
	}
	total := 0.0
	for _, n := range names {
		total += ms(quantile(took[n], .5))
	}
	at := 0.0
	for _, n := range names {
		v := ms(quantile(took[n], .5))
		from, width := int(at/total*50), max(int(v/total*50), 1)
		fmt.Fprintf(w, "  %-12s %8.2f  %s%s\n", n, v, strings.Repeat(" ", from), strings.Repeat("█", width))
		at += v
	}
}
