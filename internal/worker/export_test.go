package worker

import "time"

func init() { redisCheckTimeout = 5 * time.Second }
