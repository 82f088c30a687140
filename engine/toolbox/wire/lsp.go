package wire

import "encoding/json"

// LspServer names a language server: one per language and project.
type LspServer struct {
	LanguageID    string `json:"languageId"`    // python, typescript, javascript
	PathToProject string `json:"pathToProject"` // relative to the work directory
}

// LspDocument names a file of a project.
type LspDocument struct {
	LspServer
	URI string `json:"uri"` // file://…, or a path relative to the work directory
}

// LspCompletions asks what may stand at a position.
type LspCompletions struct {
	LspDocument
	Position LspPosition           `json:"position"`
	Context  *LspCompletionContext `json:"context,omitempty"`
}

// LspCompletionContext tells why completions are asked for, in the words of the
// language server protocol.
type LspCompletionContext struct {
	TriggerKind      int    `json:"triggerKind"`
	TriggerCharacter string `json:"triggerCharacter,omitempty"`
}

// LspPosition is a place in a file. Both count from 0; characters are UTF-16
// code units.
type LspPosition struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

// LspRange is from Start to before End.
type LspRange struct {
	Start LspPosition `json:"start"`
	End   LspPosition `json:"end"`
}

// LspLocation is a part of a file.
type LspLocation struct {
	URI   string   `json:"uri"`
	Range LspRange `json:"range"`
}

// LspSymbol is a name that a file defines. Kind is as in the language server
// protocol: 5 is a class, 12 a function.
type LspSymbol struct {
	Name     string      `json:"name"`
	Kind     int         `json:"kind"`
	Location LspLocation `json:"location"`
}

// LspCompletionList is the answer to LspCompletions.
type LspCompletionList struct {
	IsIncomplete bool                `json:"isIncomplete"`
	Items        []LspCompletionItem `json:"items"`
}

// LspCompletionItem is one completion.
type LspCompletionItem struct {
	Label         string          `json:"label"`
	Kind          int             `json:"kind,omitempty"`
	Detail        string          `json:"detail,omitempty"`
	Documentation json.RawMessage `json:"documentation,omitempty"` // text, or an object with kind and value
	SortText      string          `json:"sortText,omitempty"`
	FilterText    string          `json:"filterText,omitempty"`
	InsertText    string          `json:"insertText,omitempty"`
}
