package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// prometheusPath is the package that metrics are made with.
const prometheusPath = "github.com/prometheus/client_golang/prometheus"

// metric is one that the sources define.
type metric struct {
	name, kind, help string
	labels           []string
	// folder that it is defined in, seen from the root, with slashes.
	folder string
}

// find reads every Go source of the operator and the services.
func find(root string) ([]metric, error) {
	var found []metric
	seen := map[string]string{}
	for _, tree := range []string{"controllers", "services"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			metrics, err := inFile(path)
			if err != nil {
				return err
			}
			folder, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			for _, m := range metrics {
				if other, ok := seen[m.name]; ok {
					return fmt.Errorf("%s defines %s, as %s does", path, m.name, other)
				}
				seen[m.name] = path
				m.folder = filepath.ToSlash(folder)
				found = append(found, m)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// kinds are the constructors that define a metric, and their types.
var kinds = map[string]string{
	"NewCounter": "counter", "NewCounterVec": "counter", "NewCounterFunc": "counter",
	"NewGauge": "gauge", "NewGaugeVec": "gauge", "NewGaugeFunc": "gauge",
	"NewHistogram": "histogram", "NewHistogramVec": "histogram",
	"NewSummary": "summary", "NewSummaryVec": "summary",
}

// reader reads one file.
type reader struct {
	path string
	set  *token.FileSet
	// lists are the file's package variables that hold lists of strings.
	lists map[string][]string
	found []metric
}

func inFile(path string) ([]metric, error) {
	r := &reader{path: path, set: token.NewFileSet(), lists: map[string][]string{}}
	file, err := parser.ParseFile(r.set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	imported := slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
		return i.Name == nil && i.Path.Value == strconv.Quote(prometheusPath)
	})
	if !imported {
		return nil, nil
	}
	for _, declaration := range file.Decls {
		r.readLists(declaration)
	}
	var problem error
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok && problem == nil {
			problem = r.readCall(call)
		}
		return problem == nil
	})
	return r.found, problem
}

func (r *reader) readLists(declaration ast.Decl) {
	d, ok := declaration.(*ast.GenDecl)
	if !ok {
		return
	}
	for _, s := range d.Specs {
		v, ok := s.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || len(v.Values) != 1 {
			continue
		}
		if list, err := r.strings(v.Values[0]); err == nil {
			r.lists[v.Names[0].Name] = list
		}
	}
}

// readCall takes down the metric that a call defines, if it does.
func (r *reader) readCall(call *ast.CallExpr) error {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	if of, ok := selector.X.(*ast.Ident); !ok || of.Name != "prometheus" {
		return nil
	}
	if selector.Sel.Name == "NewDesc" {
		return r.readDescription(call)
	}
	kind, ok := kinds[selector.Sel.Name]
	if !ok {
		return nil
	}
	options, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return r.refuse(call, "the options of a metric must be written where it is made")
	}
	m := metric{kind: kind}
	for _, element := range options.Elts {
		field, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return r.refuse(call, "the options of a metric must name their fields")
		}
		key, ok := field.Key.(*ast.Ident)
		if !ok {
			continue
		}
		var err error
		switch key.Name {
		case "Name":
			m.name, err = r.text(field.Value)
		case "Help":
			m.help, err = r.text(field.Value)
		case "Namespace", "Subsystem":
			err = r.refuse(call, "write the whole name of a metric as its Name, so that it is found by searching")
		case "ConstLabels":
			var labels []string
			labels, err = r.labelNames(field.Value, call)
			m.labels = append(m.labels, labels...)
		}
		if err != nil {
			return err
		}
	}
	if strings.HasSuffix(selector.Sel.Name, "Vec") {
		labels, err := r.strings(call.Args[1])
		if err != nil {
			return err
		}
		m.labels = append(m.labels, labels...)
	}
	return r.take(call, m)
}

// readDescription reads what a collector tells: a counter if its name ends as those
// of counters do, and a gauge otherwise.
func (r *reader) readDescription(call *ast.CallExpr) error {
	m := metric{kind: "gauge"}
	var err error
	if m.name, err = r.text(call.Args[0]); err != nil {
		return err
	}
	if m.help, err = r.text(call.Args[1]); err != nil {
		return err
	}
	if m.labels, err = r.strings(call.Args[2]); err != nil {
		return err
	}
	if strings.HasSuffix(m.name, "_total") {
		m.kind = "counter"
	}
	return r.take(call, m)
}

func (r *reader) take(call *ast.CallExpr, m metric) error {
	switch {
	case !strings.HasPrefix(m.name, "marketplane_"):
		return r.refuse(call, fmt.Sprintf("the name %q does not begin with marketplane_", m.name))
	case m.help == "":
		return r.refuse(call, m.name+" has no Help")
	}
	r.found = append(r.found, m)
	return nil
}

func (r *reader) refuse(n ast.Node, problem string) error {
	return fmt.Errorf("%s: %s", r.set.Position(n.Pos()), problem)
}

// text is a string that is written as it is.
func (r *reader) text(e ast.Expr) (string, error) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", r.refuse(e, "a metric's name and help must be written as they are")
	}
	return strconv.Unquote(literal.Value)
}

// strings is a list of strings: written as it is, a variable of the file, or
// append(slices.Clone(variable), …).
func (r *reader) strings(e ast.Expr) ([]string, error) {
	switch e := e.(type) {
	case *ast.CompositeLit:
		return r.texts(e.Elts)
	case *ast.Ident:
		if list, ok := r.lists[e.Name]; ok || e.Name == "nil" {
			return list, nil
		}
	case *ast.CallExpr:
		if list, ok := r.appended(e); ok {
			more, err := r.texts(e.Args[1:])
			return append(slices.Clone(list), more...), err
		}
	}
	return nil, r.refuse(e, "a metric's labels must be written as they are")
}

func (r *reader) appended(call *ast.CallExpr) ([]string, bool) {
	if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "append" || len(call.Args) == 0 {
		return nil, false
	}
	clone, ok := call.Args[0].(*ast.CallExpr)
	if !ok || len(clone.Args) != 1 {
		return nil, false
	}
	variable, ok := clone.Args[0].(*ast.Ident)
	if !ok {
		return nil, false
	}
	list, ok := r.lists[variable.Name]
	return list, ok
}

func (r *reader) texts(elements []ast.Expr) ([]string, error) {
	list := make([]string, 0, len(elements))
	for _, element := range elements {
		text, err := r.text(element)
		if err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, nil
}

// labelNames are the keys of prometheus.Labels.
func (r *reader) labelNames(e ast.Expr, call *ast.CallExpr) ([]string, error) {
	literal, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil, r.refuse(call, "a metric's constant labels must be written where it is made")
	}
	var names []string
	for _, element := range literal.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return nil, r.refuse(call, "a metric's constant labels must be a map")
		}
		name, err := r.text(pair.Key)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}
