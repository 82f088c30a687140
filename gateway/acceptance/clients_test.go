package acceptance

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-sh/atoll/engine/enginetest/published"
)

var (
	update = flag.Bool("update", false, "write the pages that a run makes")
	all    = flag.Bool("all", false, "also drive the packages of agent frameworks")
)

// client is a published package with the program that does its main work.
type client struct {
	name, version string
	program       string   // below programs
	npm           []string // what to install with it
	python        string   // a Python package: the requirements file below programs
	slow          bool     // takes long to install, left to make acceptance
}

// clients are driven beside the SDKs for TypeScript. Peers are pinned too. That
// of OpenAI for JavaScript asks for a version of the SDK that was never
// published; the next one stands in. That of Pydantic AI takes the SDK for
// Python at 0.203.0.
var clients = []client{
	{name: "daytona (Python)", version: "0.226.1", program: "python.py", python: "requirements.txt"},
	{name: "@langchain/daytona", version: "0.1.2", program: "langchain.cjs", npm: []string{"deepagents@1.14.1"}, slow: true},
	{name: "@mastra/daytona", version: "0.4.1", program: "mastra.cjs", npm: []string{"@mastra/core@1.71.0"}, slow: true},
	{name: "@computesdk/daytona", version: "1.7.32", program: "computesdk.cjs", npm: []string{"--ignore-scripts"}, slow: true},
	{
		name: "@openai/agents-extensions", version: "0.18.0", program: "openai.cjs", slow: true,
		npm: []string{"@openai/agents@0.18.0", "@daytonaio/sdk@0.164.0", "zod@4.6.7", "--legacy-peer-deps"},
	},
	{name: "langchain-daytona (Python)", version: "0.0.9", program: "langchain_backend.py", python: "frameworks.txt", slow: true},
	{name: "openai-agents (Python)", version: "0.24.0", program: "openai_agents.py", python: "frameworks.txt", slow: true},
	{name: "pydantic-ai-daytona (Python)", version: "0.2.0", program: "pydantic_agent.py", python: "pydantic.txt", slow: true},
}

// operations are the columns of docs/acceptance.md. The methods are those of
// program.cjs that stand for one.
var operations = []operation{
	{"create", []string{"daytona.create"}},
	{"find", []string{"daytona.get", "daytona.list"}},
	{"exec", []string{"process.executeCommand"}},
	{"code run", []string{"process.codeRun"}},
	{"session", []string{"process.createSession", "process.executeSessionCommand"}},
	{"stream", []string{"process.getSessionCommandLogs", "process.createPty"}},
	{"files", []string{"fs.uploadFile", "fs.downloadFile", "fs.listFiles"}},
	{"preview", []string{"sandbox.getPreviewLink"}},
	{"snapshot", []string{"snapshot.create", "snapshot.delete"}},
	{"delete", []string{"sandbox.delete"}},
}

type operation struct {
	name    string
	methods []string
}

// TestClients fails on an operation that fails. What the server says it does
// not have is listed as missing in docs/sdk.md and docs/acceptance.md, which
// must be as the run has found it.
func TestClients(t *testing.T) {
	published.Node(t) // installs before the server starts, which would idle
	s := start(t)
	s.buildDesktop()
	image := serveImage(t)
	sdk := s.driveSDKs(image)
	s.runSkill()
	found := []results{}
	for i, p := range sdks {
		found = append(found, sdk.summary(i, p.pkg, p.version))
	}
	for _, c := range clients {
		if c.slow && !*all {
			continue
		}
		found = append(found, s.driveClient(c, image))
	}
	if t.Failed() {
		return
	}
	compare(t, filepath.Join("..", "..", "docs", "sdk.md"), sdk.page())
	if *all {
		compare(t, filepath.Join("..", "..", "docs", "acceptance.md"), page(found))
	}
}

func (s *server) driveClient(c client, image string) results {
	s.Helper()
	interpreter, args := "", []string{filepath.Join("programs", c.program)}
	if c.python != "" {
		interpreter = published.Python(s.T, filepath.Join("programs", c.python))
	} else {
		interpreter = published.Node(s.T)
		args = append(args, published.NPM(s.T, append([]string{c.name + "@" + c.version}, c.npm...)...))
	}
	r := results{client: c.name, version: c.version}
	for _, l := range s.drive(c.name, interpreter, args, image) {
		s.judge(c.name+" "+c.version, l)
		r.add(l.Method, l.Result)
	}
	if len(r.order) == 0 {
		s.Errorf("%s %s: the program did nothing", c.name, c.version)
	}
	return r
}

// results is a row of docs/acceptance.md.
type results struct {
	client, version string
	order           []string
	of              map[string]string // operation → result
	note            string
}

func (r *results) add(operation, result string) {
	if r.of == nil {
		r.of = map[string]string{}
	}
	r.order = append(r.order, operation)
	r.of[operation] = result
}

// summary is the row of one version of the SDK: the worst of its methods
// counts.
func (b *table) summary(version int, pkg, number string) results {
	r := results{client: pkg, version: number, note: "all methods: [sdk.md](sdk.md)"}
	for _, o := range operations {
		result := ""
		for _, m := range o.methods {
			if got := b.results[m]; got != nil && (result == "" || got[version] != "ok") {
				result = got[version]
			}
		}
		r.add(o.name, result)
	}
	return r
}

func page(found []results) string {
	var out strings.Builder
	out.WriteString("# Published clients\n\n" +
		"This page is generated: `make acceptance` drives a server with published, unmodified packages, " +
		"which get nothing but `DAYTONA_API_URL` and `DAYTONA_API_KEY`, and writes down what it finds. " +
		"An operation is *ok* when it did its work and its results were right, *missing* when the server answered 501, " +
		"and *–* when the package does not have it. One that fails fails the test. " +
		"The programs lie in `gateway/acceptance/programs`.\n\n")
	out.WriteString("| package | version |")
	for _, o := range operations {
		out.WriteString(" " + o.name + " |")
	}
	out.WriteString(" also |\n| --- | --- |" + strings.Repeat(" --- |", len(operations)+1) + "\n")
	for _, r := range found {
		fmt.Fprintf(&out, "| `%s` | %s |", r.client, r.version)
		for _, o := range operations {
			out.WriteString(" " + cell(r.of[o.name]) + " |")
		}
		out.WriteString(" " + r.also() + " |\n")
	}
	out.WriteString("\n" + unreached)
	return out.String()
}

// also names the operations that have no column.
func (r results) also() string {
	var parts []string
	for _, name := range r.order {
		if slices.ContainsFunc(operations, func(o operation) bool { return o.name == name }) {
			continue
		}
		parts = append(parts, name+" "+cell(r.of[name]))
	}
	if r.note != "" {
		parts = append(parts, r.note)
	}
	return strings.Join(parts, ", ")
}

const unreached = `The SDKs for Go, Java and Ruby could not be obtained from their registries when
these tests were written, so nothing is claimed of them beyond the wire: they decode
strictly, and the tests of this package hold every answer against the fields that
they require, and replay requests as clients send them.
`
