package controllers

import "time"

// LookOften bounds the pauses between two looks at a Marketplace, so that tests
// see what a look comes to without waiting for one.
func (r *Reconciler) LookOften(pause time.Duration) { r.longestPause = pause }
