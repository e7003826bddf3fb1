// How the search orders what it finds: by Sphinx's own scores, but of several pages with the same score, those that
// have the words in their title come first.
var Scorer = {
  score: ([, title, , , score]) => {
    const words = (new URLSearchParams(location.search).get("q") || "").toLowerCase().split(/\s+/);
    return score + words.filter((word) => title.toLowerCase().includes(word)).length;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
