// Package docs contains the tests that compare the documents with the code.
package docs
