package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// terms are the constants that stand in conditions.
type terms struct {
	conditions, reasons []term
}

// term is a constant's value and what its comment says about it.
type term struct {
	value, meaning string
}

// constants finds Condition… and Reason… in Go source, in their order.
func constants(source []byte) (terms, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.ParseComments)
	if err != nil {
		return terms{}, err
	}
	var t terms
	for _, declaration := range file.Decls {
		group, ok := declaration.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			constant, ok := spec.(*ast.ValueSpec)
			if !ok || len(constant.Names) != 1 || len(constant.Values) != 1 {
				continue
			}
			if err := t.add(constant); err != nil {
				return terms{}, err
			}
		}
	}
	if len(t.conditions) == 0 || len(t.reasons) == 0 {
		return terms{}, errors.New("no constants Condition… and Reason…")
	}
	return t, nil
}

func (t *terms) add(constant *ast.ValueSpec) error {
	name := constant.Names[0].Name
	literal, ok := constant.Values[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return nil
	}
	value, err := strconv.Unquote(literal.Value)
	if err != nil {
		return fmt.Errorf("constant %s: %w", name, err)
	}
	// "ReasonX: what it means", or "ConditionX is True when …".
	meaning := strings.TrimPrefix(prose(constant.Doc.Text()), name)
	meaning = strings.TrimSpace(strings.TrimPrefix(meaning, ":"))
	meaning = strings.TrimPrefix(meaning, "is ")
	if meaning == "" {
		return fmt.Errorf("constant %s has no comment", name)
	}
	meaning = strings.ToUpper(meaning[:1]) + meaning[1:]
	switch {
	case strings.HasPrefix(name, "Condition"):
		t.conditions = append(t.conditions, term{value, meaning})
	case strings.HasPrefix(name, "Reason"):
		t.reasons = append(t.reasons, term{value, meaning})
	}
	return nil
}
