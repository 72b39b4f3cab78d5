package statuspoll

import "context"

// Ready implements Asker.
func (a *ListAsker) Ready(ctx context.Context) error { return a.Gate.Ready(ctx, a.Client) }

// Ready implements Asker.
func (a *QueryAsker) Ready(ctx context.Context) error { return a.Gate.Ready(ctx, a.Client) }
