package desktop

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"

	"github.com/jezek/xgb/xfixes"
	"github.com/jezek/xgb/xproto"
	"golang.org/x/image/draw"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

// Shot says what picture to take of the screen.
type Shot struct {
	Region  *image.Rectangle // nil: the whole screen
	Cursor  bool             // draw the pointer too
	Format  string           // png, the default, or jpeg
	Quality int              // of JPEG, 1 to 100; 0: 80
	Scale   float64          // 0.1 to 1; 0: 1
}

// Check tells what is wrong with a Shot, whatever the screen.
func (s Shot) Check() error {
	switch {
	case s.Format != "" && s.Format != "png" && s.Format != "jpeg" && s.Format != "jpg":
		return wire.BadRequest("format: %.20q is not offered; use png or jpeg", s.Format)
	case s.Quality < 0 || s.Quality > 100:
		return wire.BadRequest("quality: %d is not possible; use 1 to 100", s.Quality)
	case s.Scale != 0 && !(s.Scale >= 0.1 && s.Scale <= 1):
		return wire.BadRequest("scale: %g is not possible; use 0.1 to 1", s.Scale)
	case s.Region != nil && (s.Region.Dx() < 1 || s.Region.Dy() < 1):
		return wire.BadRequest("width, height: %d by %d is not a region; both must be 1 or more", s.Region.Dx(), s.Region.Dy())
	}
	return nil
}

// Picture takes a picture of the screen.
func (s *Screen) Picture(shot Shot) (wire.ScreenshotResponse, error) {
	var out wire.ScreenshotResponse
	if err := shot.Check(); err != nil {
		return out, err
	}
	var pixels *image.RGBA
	err := s.use(func(x *display) (err error) {
		if out.CursorPosition, err = x.pointer(); err != nil {
			return err
		}
		pixels, err = x.capture(shot)
		return err
	})
	if err != nil {
		return out, err
	}
	b, err := encode(pixels, shot)
	if err != nil {
		return out, err
	}
	out.Screenshot, out.SizeBytes = base64.StdEncoding.EncodeToString(b), len(b)
	return out, nil
}

// capture reads the pixels.
func (x *display) capture(shot Shot) (*image.RGBA, error) {
	w, h, err := x.size()
	if err != nil {
		return nil, err
	}
	r := image.Rect(0, 0, w, h)
	if shot.Region != nil {
		if !shot.Region.In(r) {
			return nil, wire.BadRequest("x, y, width, height: the region reaches beyond the screen, which is %d by %d", w, h)
		}
		r = *shot.Region
	}
	got, err := xproto.GetImage(x.Conn, xproto.ImageFormatZPixmap, xproto.Drawable(x.root),
		int16(r.Min.X), int16(r.Min.Y), uint16(r.Dx()), uint16(r.Dy()), 1<<32-1).Reply()
	if err != nil {
		return nil, err
	}
	if got.Depth != 24 && got.Depth != 32 || len(got.Data) < 4*r.Dx()*r.Dy() {
		return nil, wire.Errorf(500, wire.CodeInternal, "the display has %d bits per pixel; only 24 and 32 are understood", got.Depth)
	}
	pixels := image.NewRGBA(r)
	for i := 0; i < len(pixels.Pix); i += 4 { // BGRX to RGBA
		p, q := pixels.Pix[i:i+4:i+4], got.Data[i:i+4:i+4]
		p[0], p[1], p[2], p[3] = q[2], q[1], q[0], 0xff
	}
	if shot.Cursor {
		return pixels, x.drawCursor(pixels)
	}
	return pixels, nil
}

// drawCursor draws the pointer as it looks now.
func (x *display) drawCursor(on *image.RGBA) error {
	c, err := xfixes.GetCursorImage(x.Conn).Reply()
	if err != nil {
		return err
	}
	w, h := int(c.Width), int(c.Height)
	if len(c.CursorImage) < w*h {
		return nil
	}
	cursor := image.NewRGBA(image.Rect(0, 0, w, h))
	for i, p := range c.CursorImage[:w*h] { // premultiplied ARGB
		cursor.SetRGBA(i%w, i/w, color.RGBA{uint8(p >> 16), uint8(p >> 8), uint8(p), uint8(p >> 24)})
	}
	at := image.Pt(int(c.X)-int(c.Xhot), int(c.Y)-int(c.Yhot))
	draw.Draw(on, cursor.Bounds().Add(at), cursor, image.Point{}, draw.Over)
	return nil
}

// encode makes a file of the pixels.
func encode(pixels *image.RGBA, shot Shot) ([]byte, error) {
	if shot.Scale != 0 && shot.Scale != 1 {
		w := max(1, int(float64(pixels.Rect.Dx())*shot.Scale+0.5))
		h := max(1, int(float64(pixels.Rect.Dy())*shot.Scale+0.5))
		small := image.NewRGBA(image.Rect(0, 0, w, h))
		draw.CatmullRom.Scale(small, small.Rect, pixels, pixels.Rect, draw.Src, nil)
		pixels = small
	}
	var b bytes.Buffer
	if shot.Format == "jpeg" || shot.Format == "jpg" {
		quality := shot.Quality
		if quality == 0 {
			quality = 80
		}
		err := jpeg.Encode(&b, pixels, &jpeg.Options{Quality: quality})
		return b.Bytes(), err
	}
	// The fastest level makes files a tenth larger in a third of the time.
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	err := enc.Encode(&b, pixels)
	return b.Bytes(), err
}
