package toolbox

import (
	"encoding/base64"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-sh/atoll/engine/toolbox/wire"
)

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestLiftExports(t *testing.T) {
	script := "echo '" + encoded(`printf '%s|' "$A" "$B"`) + "' | base64 -d | sh"
	a := "export A=$(echo '" + encoded(`it's "x"; echo no`) + "' | base64 -d);"
	b := "export B=$(echo '" + encoded("two  words") + "' | base64 -d);"
	for _, c := range []struct {
		name, command, want string
		envs                map[string]string
	}{
		{"two", `sh -c "` + a + b + " " + script + `"`, script, map[string]string{"A": `it's "x"; echo no`, "B": "two  words"}},
		{"one", `sh -c "` + b + " " + script + `"`, script, map[string]string{"B": "two  words"}},
		{"none", `sh -c "` + script + `"`, `sh -c "` + script + `"`, nil},
		{"more behind", `sh -c "` + a + " " + script + `"; id`, `sh -c "` + a + " " + script + `"; id`, nil},
		{"value of another kind", `sh -c "export A=x; ` + script + `"`, `sh -c "export A=x; ` + script + `"`, nil},
		{"not base64", `sh -c "export A=$(echo 'a' | base64 -d); ` + script + `"`, `sh -c "export A=$(echo 'a' | base64 -d); ` + script + `"`, nil},
		{"plain", "echo x", "echo x", nil},
	} {
		got, envs := liftExports(c.command, nil)
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if d := cmp.Diff(c.envs, envs); d != "" {
			t.Errorf("%s: environment (-want +got):\n%s", c.name, d)
		}
	}
}

func TestExecuteOfOldClients(t *testing.T) {
	box := open(t)
	command := `sh -c "export A=$(echo '` + encoded("it's; x  y") + `' | base64 -d); echo '` + encoded(`echo "$A"; exit 3`) + `' | base64 -d | sh"`
	got, err := box.Execute(t.Context(), wire.ExecuteRequest{Command: command})
	if err != nil {
		t.Fatal(err)
	}
	if got.ExitCode != 3 || got.Result != "it's; x  y\n" {
		t.Errorf("got %+v", got)
	}
}
