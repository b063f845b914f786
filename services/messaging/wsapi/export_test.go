package wsapi

import "slices"

// OpsOnConversations are the ops that name a conversation, sorted.
func OpsOnConversations() []string {
	var ops []string
	for op, f := range fields {
		if slices.Contains(slices.Concat(f.required, f.optional), fieldConversation) {
			ops = append(ops, op)
		}
	}
	slices.Sort(ops)
	return ops
}
