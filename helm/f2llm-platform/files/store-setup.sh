# A user with a key of its own, and a bucket that only it may use, for each file of the directory: name of the team, its key.
# May run again at any time: a key that changed is changed, and nothing is ever deleted.
set -eu
for file in "$1"/*; do
  team=${file##*/}
  key=$(cat "$file")
  "$PROGRAM" admin update-user --access "$team" --secret "$key" 2>/dev/null ||
    "$PROGRAM" admin create-user --access "$team" --secret "$key" --role user
  "$PROGRAM" admin list-buckets | grep -q "^$team[[:space:]]" ||
    "$PROGRAM" admin create-bucket --bucket "$team" --owner "$team"
  echo "bucket $team is there"
done
