package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/atoll-sh/atoll/skills"
)

func newSkillsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "skills", Aliases: []string{"skill"}, Short: "Teach agents how to work with sandboxes",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("skills needs one of list, install and remove")
		},
	}
	cmd.AddCommand(newSkillsListCommand(a), newSkillsInstallCommand(a), newSkillsRemoveCommand(a))
	return cmd
}

func newSkillsListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the skills", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := skills.All()
			if err != nil {
				return err
			}
			if a.format == "json" {
				list := make([]map[string]any, 0, len(all))
				for _, s := range all {
					list = append(list, map[string]any{"name": s.Name, "description": s.Description, "files": len(s.Files)})
				}
				return json.NewEncoder(a.out).Encode(list)
			}
			for _, s := range all {
				fmt.Fprintf(a.out, "%s\n    %s\n", s.Name, s.Description)
			}
			return nil
		},
	}
}

// skillOptions are the flags of install and remove.
type skillOptions struct {
	scope         string
	dryRun, force bool
}

func (o *skillOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.scope, "scope", "user", "user (all projects) or project (this directory)")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be done and change nothing")
	f.BoolVar(&o.force, "force", false, "also replace what was changed or is not ours")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		all, _ := skills.All()
		var names []string
		for _, s := range all {
			names = append(names, s.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func newSkillsInstallCommand(a *app) *cobra.Command {
	var o skillOptions
	cmd := &cobra.Command{
		Use:   "install [NAME…]",
		Short: "Install skills for the agents on this computer",
		Long: "Puts skills, all when none is named, into .agents/skills, which most agents read,\n" +
			"and links to them in .claude/skills, for Claude Code. Running it again updates them.\n" +
			"Skills that you changed, and all others, stay as they are.",
		Example: "  atoll skills install\n  atoll skills install atoll-sandbox --scope project",
		RunE: func(_ *cobra.Command, names []string) error {
			return a.eachSkill(names, o, skills.Tree.Install)
		},
	}
	o.flags(cmd)
	return cmd
}

func newSkillsRemoveCommand(a *app) *cobra.Command {
	var o skillOptions
	cmd := &cobra.Command{
		Use: "remove [NAME…]", Short: "Take installed skills out, all when none is named",
		RunE: func(_ *cobra.Command, names []string) error {
			return a.eachSkill(names, o, func(t skills.Tree, s skills.Skill) ([]skills.Outcome, error) { return t.Remove(s.Name) })
		},
	}
	o.flags(cmd)
	return cmd
}

// eachSkill does something to the named skills, or all, and reports it.
func (a *app) eachSkill(names []string, o skillOptions, do func(skills.Tree, skills.Skill) ([]skills.Outcome, error)) error {
	chosen, err := chooseSkills(names)
	if err != nil {
		return err
	}
	tree := skills.Tree{DryRun: o.dryRun, Force: o.force, Copy: runtime.GOOS == "windows"}
	switch o.scope {
	case "user":
		tree.Root, err = os.UserHomeDir()
	case "project":
		tree.Root, err = os.Getwd()
	default:
		return usagef("--scope must be user or project, not %q", o.scope)
	}
	if err != nil {
		return err
	}
	all := []skills.Outcome{}
	for _, s := range chosen {
		var out []skills.Outcome
		out, err = do(tree, s)
		if all = append(all, out...); err != nil {
			break
		}
	}
	if a.format == "json" {
		return cmp.Or(err, json.NewEncoder(a.out).Encode(all))
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, out := range all {
		fmt.Fprintf(w, "%s\t%s\n", out.Action, out.Path)
	}
	return cmp.Or(err, w.Flush())
}

func chooseSkills(names []string) ([]skills.Skill, error) {
	all, err := skills.All()
	if err != nil || len(names) == 0 {
		return all, err
	}
	var chosen []skills.Skill
	var known []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	for _, name := range names {
		i := slices.Index(known, name)
		if i < 0 {
			return nil, usagef("there is no skill %q; there are %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}
