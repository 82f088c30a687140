package clients

import "bytes"

// Add returns the file's new content with the server in it. Content that has
// it already comes back as it was.
func (a Agent) Add(src []byte, s Server) ([]byte, error) {
	v, err := a.Value(s)
	if err != nil {
		return nil, err
	}
	mark, body := byteOrderMark(src)
	switch a.format {
	case toml:
		body, err = addTOML(body, a.key, s.Name, v)
	case yamlMap, yamlList:
		body, err = addYAML(body, a.key, s.Name, v, a.format == yamlList)
	default:
		body, err = addJSON(body, a.key, s.Name, v)
	}
	return append(mark, body...), err
}

// Remove returns the content without the server of that name. It is empty when
// nothing else was in it.
func (a Agent) Remove(src []byte, name string) (out []byte, err error) {
	mark, body := byteOrderMark(src)
	switch a.format {
	case toml:
		body, err = removeTOML(body, a.key, name)
	case yamlMap, yamlList:
		body, err = removeYAML(body, a.key, name, a.format == yamlList)
	default:
		body, err = removeJSON(body, a.key, name)
	}
	if len(body) == 0 {
		return nil, err
	}
	return append(mark, body...), err
}

// Print returns what to put into the file by hand.
func (a Agent) Print(s Server) (string, error) {
	out, err := a.Add(nil, s)
	if err != nil {
		return "", err
	}
	return string(out), nil
}

func byteOrderMark(src []byte) (mark, body []byte) {
	const bom = "\xef\xbb\xbf"
	if bytes.HasPrefix(src, []byte(bom)) {
		return []byte(bom), src[len(bom):]
	}
	return nil, src
}
