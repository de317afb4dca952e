# Creates a user and a bucket that only this user may use, for each file of the directory. The name of the file is the team, and
# its content is the key. It can run again at any time: it updates changed keys, and never deletes anything.
set -eu
for file in "$1"/*; do
  team=${file##*/}
  key=$(cat "$file")
  "$PROGRAM" admin update-user --access "$team" --secret "$key" 2>/dev/null ||
    "$PROGRAM" admin create-user --access "$team" --secret "$key" --role user
  "$PROGRAM" admin list-buckets | grep -q "^$team[[:space:]]" ||
    "$PROGRAM" admin create-bucket --bucket "$team" --owner "$team"
  echo "bucket $team exists"
done
