package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
)

// icon draws an atoll: a ring of sand around a lagoon, open to the sea.
func icon() ([]byte, error) {
	const size = 512
	sea, sand, lagoon := color.NRGBA{0x0b, 0x3d, 0x5c, 255}, color.NRGBA{0xf2, 0xd5, 0x9c, 255}, color.NRGBA{0x3f, 0xc1, 0xc9, 255}
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			dx, dy := float64(x)-size/2, float64(y)-size/2
			r, angle := math.Hypot(dx, dy), math.Atan2(dy, dx)
			c := sea
			switch {
			case r < 130:
				c = lagoon
			case r < 190 && math.Abs(angle-0.6) < 0.25:
				c = lagoon
			case r < 190:
				c = sand
			}
			img.SetNRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}
